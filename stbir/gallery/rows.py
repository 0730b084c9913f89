"""The rows of one version of a gallery, by their place in the table: names, texts, filters, and vectors."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stbir.gallery.arrays import Features, Index
from stbir.gallery.caption_store import NoTexts, TextsAt

VECTOR = "embedding"
ROW_ID = "_rowid"
# Up to so many photos that meet a filter are all scored: that takes milliseconds, and an index would look
# for them among the photos that do not.
FEW = 20_000
_KEPT_BYTES = 2**28  # of what met the last filters
_MOST_FILTERS = 64


@dataclass(frozen=True)
class Matching:
    """The rows that meet a filter: their `places`, ascending, where they are FEW, else a mask of all rows."""

    count: int
    places: Index | None
    mask: NDArray[np.bool_] | None

    def all_places(self) -> Index:
        """However many they are."""
        if self.places is not None:
            return self.places
        assert self.mask is not None
        return np.flatnonzero(self.mask)


class Rows:
    """Who lies where in the table. Holds per photo its id, a code of its category, and 8 bytes; what is said
    of it lies in `texts`."""

    def __init__(self, dataset: lance.LanceDataset, texts: TextsAt | None = None) -> None:
        self.texts = texts or NoTexts()
        table = dataset.to_table(columns=["photo_id", "category"], with_row_id=True)
        self.photo_ids = table["photo_id"].cast(pa.large_string()).combine_chunks()
        self.categories = table["category"].combine_chunks().dictionary_encode()
        self._row_ids = table[ROW_ID].to_numpy()
        ascending = bool((self._row_ids[1:] > self._row_ids[:-1]).all())
        self._order = None if ascending else np.argsort(self._row_ids)
        # The version never changes, so neither does what meets a filter.
        filters = min(_MOST_FILTERS, _KEPT_BYTES // max(len(self), 1))
        self.matching = lru_cache(max(2, filters))(self._matching)

    def __len__(self) -> int:
        return len(self._row_ids)

    def sizes(self) -> dict[str, int]:
        """How many photos each category has."""
        counts = self.categories.value_counts().to_pylist()
        return {each["values"]: each["counts"] for each in counts}

    def place(self, photo_id: str) -> int | None:
        """Where a photo lies; None where there is no such photo."""
        found: int = pc.index(self.photo_ids, pa.scalar(photo_id, pa.large_string())).as_py()
        return None if found < 0 else found

    def places(self, row_ids: Index) -> Index:
        """Where Lance's own ids of rows lie."""
        found = np.searchsorted(self._row_ids, row_ids, sorter=self._order)
        return np.asarray(found if self._order is None else self._order[found], np.int64)

    def _matching(self, dataset: lance.LanceDataset, filter: str) -> Matching:
        """What meets a filter, found by `dataset`: this version, or a copy of what it needs for that."""
        table = dataset.to_table(columns=[], filter=filter, with_row_id=True)
        places = self.places(table[ROW_ID].to_numpy())
        if len(places) <= FEW:
            return Matching(len(places), np.sort(places), None)
        mask = np.zeros(len(self), bool)
        mask[places] = True
        return Matching(len(places), None, mask)


def vectors_held(dataset: lance.LanceDataset) -> Features:
    """All of them, (N, D), in memory."""
    return vectors(dataset.to_table(columns=[VECTOR]))


class VectorsAt(Protocol):
    """An array (N, D), be it in memory, mapped from a file, or read piece by piece."""

    def __getitem__(self, places: Index, /) -> Features:
        """The vectors (R, D) of the rows at those places (R,)."""


class VectorsInTable:
    """Reads them from the table whenever they are asked for: no memory, some milliseconds each time."""

    def __init__(self, dataset: lance.LanceDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, places: Index, /) -> Features:
        return vectors(self._dataset.take(places, columns=[VECTOR]))


def vectors(table: pa.Table | pa.RecordBatch) -> Features:
    """The embeddings of some rows, (N, D)."""
    column = table[VECTOR]
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(flat.flatten(), np.float32).reshape(len(table), column.type.list_size)
