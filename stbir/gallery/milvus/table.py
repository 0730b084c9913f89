"""A version of a gallery's table as a Milvus collection. A file holds its schema and its number of rows."""

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from stbir.gallery.arrays import Indices
from stbir.gallery.filters import Filter
from stbir.gallery.milvus.columns import KEY, Column, columns_of, to_batch
from stbir.gallery.milvus.filter import expression
from stbir.gallery.table import VECTOR
from stbir.storage.folder import Folder
from stbir.storage.milvus_server import MilvusServer

BATCH_ROWS = 1000  # with thumbnails about 15 MB; Milvus limits a response to 64 MB
_NARROW_BATCH_ROWS = 10_000  # without vectors and thumbnails; Milvus returns 16,384 rows at most
_WIDE = (VECTOR, "thumbnail")


@dataclass
class State:
    """What Milvus does not store. Rows with a key from `rows` on are not committed.

    `appended`: whether rows were appended since the version was made. `categories`: photos by category.
    """

    schema: str
    rows: int = 0
    appended: bool = False
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat())
    categories: dict[str, int] | None = None


class MilvusTable:
    """As in `stbir.gallery.table.Table`. A row's id is its position."""

    def __init__(self, folder: Folder, version: int, state: State) -> None:
        self._folder, self.version, self.state = folder, version, state
        self.server: MilvusServer = folder.fs.server
        self.collection = collection_name(folder, version)
        self.uri = f"{folder.uri}: version {version}"
        self.schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(state.schema)))
        self.columns: dict[str, Column] = columns_of(self.schema)

    def count_rows(self) -> int:
        """As in Table."""
        return self.state.rows

    def to_batches(
        self,
        columns: Sequence[str] | None = None,
        filter: Filter | None = None,
        batch_size: int | None = None,
        with_row_id: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """As in Table. `batch_size` is an upper limit."""
        names = list(self.columns) if columns is None else list(columns)
        size = BATCH_ROWS if set(names) & set(_WIDE) else _NARROW_BATCH_ROWS
        size = min(size, batch_size or size)
        matches = f" and {expression(filter, self.columns)}" if filter else ""
        for first in range(0, self.state.rows, size):
            last = min(first + size, self.state.rows)
            entities = self.query(f"{KEY} >= {first} and {KEY} < {last}{matches}", names, is_strong=True)
            if entities:
                entities.sort(key=lambda entity: entity[KEY])
                yield to_batch(entities, [self.columns[name] for name in names], with_row_id)

    def take(self, indices: Indices | list[int], columns: Sequence[str]) -> pa.Table:
        """As in Table."""
        keys, found = [int(index) for index in indices], dict[int, dict[str, Any]]()
        for first in range(0, len(keys), BATCH_ROWS):
            part = ", ".join(map(str, keys[first : first + BATCH_ROWS]))
            found |= {entity[KEY]: entity for entity in self.query(f"{KEY} in [{part}]", columns)}
        rows = to_batch([found[key] for key in keys], [self.columns[name] for name in columns], False)
        return pa.table(rows)

    def query(self, filter: str, columns: Sequence[str], is_strong: bool = False) -> list[dict[str, Any]]:
        """The rows that match an expression, with KEY and these columns. `is_strong`: also the latest."""
        fields = [KEY, *(self.columns[name].name for name in columns)]
        options = {"consistency_level": "Strong"} if is_strong else {}
        rows = self.server.call("query", self.collection, filter=filter, output_fields=fields, **options)
        return list(rows)

    def update_schema_metadata(self, updates: Mapping[str, str]) -> None:
        """As in Table."""
        metadata = {**(self.schema.metadata or {}), **{k.encode(): v.encode() for k, v in updates.items()}}
        self.schema = self.schema.with_metadata(metadata)
        self.state.schema = encode_schema(self.schema)
        self.save()

    def count_categories(self) -> dict[str, int]:
        """The number of photos of each category, which reads all rows unless `save_categories` has."""
        if self.state.categories is not None:
            return self.state.categories
        counts = Counter[str]()
        for batch in self.to_batches(columns=["category"]):
            counts.update(batch["category"].to_pylist())
        return dict(counts)

    def save_categories(self) -> None:
        """Store the counts, for a version that gets no more rows."""
        self.state.categories = self.count_categories()
        self.save()

    def save(self) -> None:
        """Write the state, which commits the rows below its number."""
        self._folder.write(state_name(self.version), json.dumps(asdict(self.state)).encode())


def collection_name(folder: Folder, version: int) -> str:
    """The collection of a version."""
    return f"{folder.path}__v{version}"


def state_name(version: int) -> str:
    """The file of a version's state."""
    return f"tables/{version}.json"


def encode_schema(schema: pa.Schema) -> str:
    """A schema with its metadata, as `State` holds it."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()
