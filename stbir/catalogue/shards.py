"""Shards as a catalogue: the photos of one split, or of all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

from stbir.catalogue.photo import PART_SIZE, Part, Photo
from stbir.data.schema import Row
from stbir.data.shards import Shards
from stbir.storage.retry import with_retries

_FIELDS = ("class", "split", "text")
_COLUMNS = ["photo_id", "category", *_FIELDS, "photo"]
_QUERY_COLUMNS = ["photo_id", "split", "sketches", "text"]
_NUM_QUERY_FILES = 8


@dataclass(frozen=True)
class ShardsCatalogue:
    """The photos of `split` (None: of all) in the order of the shards."""

    shards: Shards
    split: str | None = None

    @property
    def fields(self) -> pa.Schema:
        """Class, split and text."""
        return pa.schema([pa.field(name, pa.string()) for name in _FIELDS])

    def count(self) -> int:
        """See Catalogue. Raises InputError if the split is empty."""
        count = sum(len(ids) for _, ids in self._groups())
        return count or self.shards.select_split(self.split).num_rows

    def parts(self) -> Iterator[Part]:
        """See Catalogue. A part has whole row groups."""
        part = Part([], [])
        for group, ids in self._groups():
            part = Part([*part.ids, *ids], [*part.location, group])
            if len(part.ids) >= PART_SIZE:
                yield part
                part = Part([], [])
        if part.ids:
            yield part

    def identities(self, part: Part) -> list[str | None]:
        """See Catalogue. The name of a shard's file contains a hash of its content."""
        place = repr((self.shards.folder.uri, self.split, part.location))
        return [f"{place} {photo_id}" for photo_id in part.ids]

    def read(self, part: Part) -> Iterator[Photo]:
        """See Catalogue. Raises InputError for damaged shards, since no single photo is at fault."""
        for file, group in part.location:
            for row in self._rows(file, group):
                yield Photo(row["photo_id"], row["category"], tuple(row[f] for f in _FIELDS), row["photo"])

    def sample_queries(self, max_rows: int) -> list[Row]:
        """Up to `max_rows` rows with sketches and text, without photo, from files across the shards."""
        step = max(1, len(self.shards.files) // _NUM_QUERY_FILES)
        rows: list[Row] = []
        for _, groups in groupby(self._groups(self.shards.files[::step]), key=lambda group: group[0][0]):
            (file, group), _ = next(groups)
            rows += self._rows(file, group, _QUERY_COLUMNS)  # type: ignore[arg-type]
        return rows[:: max(1, len(rows) // max_rows)][:max_rows]

    def _groups(self, files: Sequence[str] | None = None) -> Iterator[tuple[tuple[str, int], list[str]]]:
        """((file, group), photo ids) of each row group with photos of the split."""
        for file in self.shards.files if files is None else files:
            index = with_retries(lambda file=file: self.shards.read_file_index(file)).to_pylist()  # type: ignore[misc]
            for group, rows in groupby(index, key=lambda row: row["group"]):
                ids = [row["photo_id"] for row in rows if self._in_split(row)]
                if ids:
                    yield (file, group), ids

    def _rows(self, file: str, group: int, columns: list[str] = _COLUMNS) -> list[dict[str, Any]]:
        table = with_retries(lambda: self.shards.read_group(file, group, columns))
        return [row for row in table.to_pylist() if self._in_split(row)]

    def _in_split(self, row: dict[str, Any]) -> bool:
        return self.split is None or row["split"] == self.split
