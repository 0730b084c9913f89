"""SHARDS as a catalogue: the photos of a split, or of all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

from stbir.catalogue.photo import PART, Part, Photo
from stbir.data.schema import Row
from stbir.data.shards import Shards
from stbir.storage.retry import patiently

_FIELDS = ("class", "split", "text")
_COLUMNS = ["photo_id", "category", *_FIELDS, "photo"]
_ASKING = ["photo_id", "split", "sketches", "text"]
_FILES = 8  # that sketches and texts are taken from


@dataclass(frozen=True)
class ShardsCatalogue:
    """The photos of `split` (None: of all) in the order of the shards."""

    shards: Shards
    split: str | None = None

    @property
    def fields(self) -> pa.Schema:
        """As in Catalogue."""
        return pa.schema([pa.field(name, pa.string()) for name in _FIELDS])

    def count(self) -> int:
        """As in Catalogue. Raises InputError where the split is empty."""
        count = sum(len(ids) for _, ids in self._groups())
        return count or self.shards.split(self.split).num_rows

    def parts(self) -> Iterator[Part]:
        """As in Catalogue; row groups stay whole."""
        ids: list[str] = []
        places: list[tuple[str, int]] = []
        for place, some in self._groups():
            ids, places = [*ids, *some], [*places, place]
            if len(ids) >= PART:
                yield Part(ids, places)
                ids, places = [], []
        if ids:
            yield Part(ids, places)

    def read(self, part: Part) -> Iterator[Photo]:
        """As in Catalogue. Raises InputError where the shards are damaged: no photo is to blame for that."""
        for place in part.place:
            for row in self._rows(*place):
                yield Photo(row["photo_id"], row["category"], tuple(row[f] for f in _FIELDS), row["photo"])

    def asking(self, most: int) -> list[Row]:
        """Up to so many rows with their sketches and text, and no photo; from files all over the shards."""
        step = max(1, len(self.shards.files) // _FILES)
        found: list[Row] = []
        for _, some in groupby(self._groups(self.shards.files[::step]), key=lambda group: group[0][0]):
            place, _ = next(some)
            found += self._rows(*place, _ASKING)  # type: ignore[arg-type]
        return found[:: max(1, len(found) // most)][:most]

    def _groups(self, files: Sequence[str] | None = None) -> Iterator[tuple[tuple[str, int], list[str]]]:
        for file in self.shards.files if files is None else files:
            index = patiently(lambda file=file: self.shards.index_of(file)).to_pylist()  # type: ignore[misc]
            for group, rows in groupby(index, key=lambda row: row["group"]):
                ids = [row["photo_id"] for row in rows if self._wanted(row)]
                if ids:
                    yield (file, group), ids

    def _rows(self, file: str, group: int, columns: list[str] = _COLUMNS) -> list[dict[str, Any]]:
        table = patiently(lambda: self.shards.read_group(file, group, columns))
        return [row for row in table.to_pylist() if self._wanted(row)]

    def _wanted(self, row: dict[str, Any]) -> bool:
        return self.split is None or row["split"] == self.split
