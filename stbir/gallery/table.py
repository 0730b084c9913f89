"""The table of a gallery: its columns, and the port through which a version is read."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import lance
import pyarrow as pa

from stbir.gallery.arrays import Indices
from stbir.gallery.filters import Filter
from stbir.storage.errors import storage_errors
from stbir.storage.folder import Folder

TABLE = "photos.lance"
PUBLISHED = "published"
VECTOR = "embedding"
ROW_ID = "_rowid"
# Lance's defaults read ahead as much as a table of 10^5 rows.
_SHORT_READAHEAD = {"batch_readahead": 2, "fragment_readahead": 1, "io_buffer_size": 2**24}
P = ParamSpec("P")
T = TypeVar("T")


class Table(Protocol):
    """A version of a gallery's table. A `lance.LanceDataset` is one: the names and options are Lance's."""

    @property
    def version(self) -> int:
        """Its number."""

    @property
    def uri(self) -> str:
        """Its location, for messages."""

    @property
    def schema(self) -> pa.Schema:
        """Its columns, and its metadata."""

    def count_rows(self) -> int:
        """The number of rows."""

    def to_batches(
        self,
        columns: Sequence[str] | None = None,
        filter: Any = None,
        batch_size: int | None = None,
        with_row_id: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """The rows in order. `with_row_id` adds ROW_ID. `filter`: in the store's language (`scan`)."""

    def take(self, indices: Indices | list[int], columns: Sequence[str]) -> pa.Table:
        """The rows at these positions, in the order given."""

    def update_schema_metadata(self, updates: Mapping[str, str]) -> Any:
        """Store metadata of the version."""


def schema(dim: int, fields: pa.Schema | None = None) -> pa.Schema:
    """The columns of the table. `content` is the SHA-256 of the photo's bytes, hexadecimal. `fields` are the
    catalogue's metadata; a string column `text` among them holds the captions."""
    return pa.schema(
        [
            pa.field("photo_id", pa.string(), nullable=False),
            pa.field("category", pa.string(), nullable=False),
            pa.field(VECTOR, pa.list_(pa.float32(), dim), nullable=False),
            pa.field("thumbnail", pa.binary()),
            pa.field("content", pa.string(), nullable=False),
            *(fields or ()),
        ]
    )


def dimension(schema: pa.Schema) -> int:
    """The length D of the vectors."""
    return int(schema.field(VECTOR).type.list_size)


def fragment_ids(table: Table) -> list[int]:
    """The parts of a table that processes can scan on their own: a Lance table's fragments, else none."""
    if not isinstance(table, lance.LanceDataset):
        return []
    return [each.fragment_id for each in table.get_fragments()]


def scan(
    table: Table, columns: Sequence[str], filter: Filter | None, fragments: list[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows that match a filter, in order; of all fragments, or of some."""
    if not isinstance(table, lance.LanceDataset):
        yield from table.to_batches(columns=columns, filter=filter)
        return
    parts = None if fragments is None else [table.get_fragment(number) for number in fragments]
    sql = filter.sql if filter else None
    yield from table.scanner(columns=columns, filter=sql, fragments=parts).to_batches()


def scan_with_ids(table: Table, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """All rows in order, with ROW_ID, few of them in memory at once."""
    options = _SHORT_READAHEAD if isinstance(table, lance.LanceDataset) else {}
    yield from table.to_batches(columns=columns, batch_size=8192, with_row_id=True, **options)


def table_uri(folder: Folder) -> str:
    """The URI of a Lance table, on this machine and on Ray workers."""
    return folder.quoted_uri_of(TABLE)


def names_table(function: Callable[Concatenate[Folder, P], T]) -> Callable[Concatenate[Folder, P], T]:
    """Decorator: storage errors (Lance's, too) become an InputError that names the table of the folder."""

    @functools.wraps(function)
    def run(folder: Folder, /, *args: P.args, **options: P.kwargs) -> T:
        with storage_errors(table_uri(folder)):
            return function(folder, *args, **options)

    return run
