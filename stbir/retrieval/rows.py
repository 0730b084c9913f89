"""The rows of one version of a gallery, by their place in the table: names, filters, and their vectors."""

from functools import lru_cache
from typing import Protocol

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stbir.retrieval.embed import Features
from stbir.retrieval.queries import Index

VECTOR = "embedding"
ROW_ID = "_rowid"
_FILTERS_KEPT = 64


class Rows:
    """Who lies where in the table. Holds per photo its id, a code of its category, and 8 bytes."""

    def __init__(self, dataset: lance.LanceDataset) -> None:
        self._dataset = dataset
        table = dataset.to_table(columns=["photo_id", "category"], with_row_id=True)
        self.photo_ids = table["photo_id"].cast(pa.large_string()).combine_chunks()
        self.categories = table["category"].combine_chunks().dictionary_encode()
        self._row_ids = table[ROW_ID].to_numpy()
        ascending = bool((self._row_ids[1:] > self._row_ids[:-1]).all())
        self._order = None if ascending else np.argsort(self._row_ids)
        # The version never changes, so neither does what meets a filter.
        self.matching = lru_cache(_FILTERS_KEPT)(self._matching)

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

    def _matching(self, filter: str, most: int) -> Index | None:
        """The places of all rows that meet a filter, ascending; None where they are more than `most`."""
        if self._dataset.count_rows(filter) > most:
            return None
        table = self._dataset.to_table(columns=[], filter=filter, with_row_id=True)
        return np.sort(self.places(table[ROW_ID].to_numpy()))


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
