"""The rows of a gallery version by row index: ids, categories, captions, vectors and filter results."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Protocol

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stbir.gallery.arrays import Features, Indices, Mask
from stbir.gallery.caption_store import CaptionStore
from stbir.gallery.filter_cache import FilterCache
from stbir.gallery.table import ROW_ID, VECTOR, Table

# Scoring this many rows takes milliseconds; the index would mostly return rows that do not match.
EXACT_SCORING_LIMIT = 20_000
_FILTER_CACHE_BYTES = 2**27


@dataclass(frozen=True)
class FilterResult:
    """The matching rows: ascending `indices` up to EXACT_SCORING_LIMIT, above it a `mask` of all rows."""

    count: int
    indices: Indices | None
    mask: Mask | None

    def to_indices(self) -> Indices:
        """The matching row indices, ascending, in either representation."""
        if self.indices is not None:
            return self.indices
        assert self.mask is not None
        return np.flatnonzero(self.mask)

    @property
    def num_bytes(self) -> int:
        """The memory of the arrays."""
        return sum(array.nbytes for array in (self.indices, self.mask) if array is not None)


class Rows:
    """Ids and categories in table order. Holds the id, a category code and 16 bytes a photo."""

    def __init__(self, dataset: lance.LanceDataset, captions: CaptionStore | None = None) -> None:
        self._captions = captions
        table = dataset.to_table(columns=["photo_id", "category"], with_row_id=True)
        self.photo_ids = table["photo_id"].cast(pa.large_string()).combine_chunks()
        self.categories = table["category"].combine_chunks().dictionary_encode()
        self._row_ids = table[ROW_ID].to_numpy()
        is_sorted = bool((self._row_ids[1:] > self._row_ids[:-1]).all())
        self._order = None if is_sorted else np.argsort(self._row_ids)
        self._by_id = pc.sort_indices(self.photo_ids).to_numpy()
        # A version is immutable, so its filter results are, too.
        self._filters = FilterCache[FilterResult](_FILTER_CACHE_BYTES, lambda result: result.num_bytes)

    def __len__(self) -> int:
        return len(self._row_ids)

    def captions(self, indices: Indices) -> list[str | None]:
        """The captions of rows; None for a photo without a caption."""
        return self._captions.take(indices) if self._captions else [None] * len(indices)

    def ids(self, indices: Indices) -> list[str]:
        """The photo ids of rows."""
        ids: list[str] = self.photo_ids.take(indices).to_pylist()
        return ids

    def fields(self, indices: Indices) -> list[tuple[str, str, str | None]]:
        """Photo id, category and caption of rows."""
        categories = self.categories.take(indices).to_pylist()
        return list(zip(self.ids(indices), categories, self.captions(indices), strict=True))

    def category_counts(self) -> dict[str, int]:
        """The number of photos of each category."""
        counts = self.categories.value_counts().to_pylist()
        return {each["values"]: each["counts"] for each in counts}

    def index_of(self, photo_id: str) -> int | None:
        """The row index of a photo; None for an unknown id. A binary search."""
        place = bisect_left(self._by_id, photo_id, key=lambda row: self.photo_ids[int(row)].as_py())
        row = int(self._by_id[place]) if place < len(self) else None
        return row if row is not None and self.photo_ids[row].as_py() == photo_id else None

    def indices_of(self, row_ids: Indices) -> Indices:
        """The row indices of Lance's row ids."""
        indices = np.searchsorted(self._row_ids, row_ids, sorter=self._order)
        return np.asarray(indices if self._order is None else self._order[indices], np.int64)

    def existing(self, row_ids: Indices) -> Indices:
        """The row indices of those of Lance's row ids that this version has; an index keeps deleted ones."""
        places = np.searchsorted(self._row_ids, row_ids, sorter=self._order).clip(max=len(self) - 1)
        indices = places if self._order is None else self._order[places]
        return np.asarray(indices[self._row_ids[indices] == row_ids], np.int64)

    def apply_filter(self, dataset: lance.LanceDataset, sql: str) -> FilterResult:
        """Evaluate a filter on `dataset`, which is this version or its index copy."""
        return self._filters.get(sql, lambda: self._apply_filter(dataset, sql))

    def _apply_filter(self, dataset: lance.LanceDataset, sql: str) -> FilterResult:
        table = dataset.to_table(columns=[], filter=sql, with_row_id=True)
        indices = self.indices_of(table[ROW_ID].to_numpy())
        if len(indices) <= EXACT_SCORING_LIMIT:
            return FilterResult(len(indices), np.sort(indices), None)
        mask = np.zeros(len(self), bool)
        mask[indices] = True
        return FilterResult(len(indices), None, mask)


class VectorArray(Protocol):
    """Random access to vectors (N, D): an array in memory, a memory-mapped file, or the table."""

    def __getitem__(self, indices: Indices, /) -> Features:
        """The vectors (R, D) of the rows (R,)."""


class TableVectors:
    """Reads vectors from the table on each access. Takes no memory, but some milliseconds an access."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __getitem__(self, indices: Indices, /) -> Features:
        return extract_vectors(self._table.take(indices, columns=[VECTOR]))


def load_vectors(dataset: lance.LanceDataset) -> Features:
    """Read all vectors (N, D) into memory."""
    return extract_vectors(dataset.to_table(columns=[VECTOR]))


def extract_vectors(table: pa.Table | pa.RecordBatch) -> Features:
    """The vector column as an array (N, D)."""
    column = table[VECTOR]
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(flat.flatten(), np.float32).reshape(len(table), column.type.list_size)
