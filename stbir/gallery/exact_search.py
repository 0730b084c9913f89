"""Exact search: int8 codes select the rows that can be among the best, and float32 scores decide."""

import lance
import numpy as np

from stbir.gallery.arrays import Features, Indices
from stbir.gallery.filters import Filter
from stbir.gallery.int8_codes import cores, decode, dot_products, encode
from stbir.gallery.ranking import Ranking, cosines, kth_best, rank
from stbir.gallery.rows import Rows

# Scoring all rows takes as long as copying this share of them.
_MAX_COPIED_SHARE = 0.25
_ROUNDING = 1e-5  # of a float32 score, relative to the length of its vector
_CHUNK_ROWS = 16_384


class VectorScan:
    """Vectors (N, D) in memory with their int8 codes: 5·D + 8 bytes a photo."""

    def __init__(self, photo_ND: Features) -> None:
        self._photo_ND = photo_ND
        self._codes_ND = np.empty(photo_ND.shape, np.int8)
        self._scale_N, self._error_N = np.empty((2, len(photo_ND)), np.float32)
        for start in range(0, len(photo_ND), _CHUNK_ROWS):
            self._encode(slice(start, start + _CHUNK_ROWS))
        self._max_length = np.sqrt(cosines(photo_ND, photo_ND).max(initial=0)) + self._error_N.max(initial=0)

    @property
    def num_bytes(self) -> int:
        """The memory of the arrays."""
        return sum(each.nbytes for each in (self._photo_ND, self._codes_ND, self._scale_N, self._error_N))

    def nearest(self, query_D: Features, k: int, indices: Indices | None = None) -> Ranking:
        """The k best of the rows `indices` (ascending; None: all). Ties keep the order of the table."""
        rows = np.arange(len(self._photo_ND)) if indices is None else indices
        with cores():
            if k < len(rows):
                rows = rows[self._can_be_best(query_D, k, indices)]
            if self._is_large(rows):
                return rank(rows, cosines(self._photo_ND, query_D)[rows], k)
            return rank(rows, cosines(self._photo_ND[rows], query_D), k)

    def _can_be_best(self, query_D: Features, k: int, indices: Indices | None) -> Indices:
        """The positions, ascending, of rows that can be among the k best.

        |q·x - q'·x'| <= |q||x - x'| + |q - q'||x'|, where q' and x' are what the codes stand for. So k rows
        score at least the k-th best lower bound, and no row scores above its upper bound.
        """
        codes_1D, scale_1 = encode(query_D[None])
        query_error = np.linalg.norm(query_D - decode(codes_1D, scale_1)[0])
        selected = slice(None) if indices is None else indices
        if indices is None or self._is_large(indices):
            products = dot_products([self._codes_ND], codes_1D)[selected]
        else:
            products = dot_products([self._codes_ND[indices]], codes_1D)
        scores = products * (scale_1 * self._scale_N[selected])
        errors = np.linalg.norm(query_D) * self._error_N[selected] + query_error * self._max_length
        return np.flatnonzero(scores + errors >= kth_best(scores - errors, k))

    def _is_large(self, indices: Indices) -> bool:
        return len(indices) > _MAX_COPIED_SHARE * len(self._photo_ND)

    def _encode(self, part: slice) -> None:
        photo_RD = self._photo_ND[part]
        self._codes_ND[part], self._scale_N[part] = encode(photo_RD)
        decoded_RD = decode(self._codes_ND[part], self._scale_N[part])
        lengths_R = np.linalg.norm(photo_RD, axis=1)
        self._error_N[part] = np.linalg.norm(photo_RD - decoded_RD, axis=1) + _ROUNDING * lengths_R


class ExactSearch:
    """Scores every photo, or every one that matches a filter. Holds a `VectorScan` of all."""

    def __init__(self, dataset: lance.LanceDataset, rows: Rows, photo_ND: Features) -> None:
        self._dataset, self._rows, self._scan = dataset, rows, VectorScan(photo_ND)

    def nearest(self, query_QD: Features, k: int, filter: Filter | None) -> list[Ranking]:
        """As in `stbir.gallery.search.Searcher`. Ties keep the order of the table."""
        match = None if filter is None else self._rows.apply_filter(self._dataset, filter.sql)
        indices = None if match is None else match.to_indices()
        return [self._scan.nearest(query_D, k, indices) for query_D in query_QD]
