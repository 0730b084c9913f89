"""The partitions of an IVF index as int8 codes on local disk: candidates without a query plan of Lance.

Planning took four fifths of an index search: docs/decisions/0056-int8-candidates.md.
"""

from collections.abc import Iterator
from pathlib import Path

import lance
import numpy as np
from lance.dataset import VectorIndexReader

from stbir.gallery.arrays import Features, Indices, Mask
from stbir.gallery.filters import Filter
from stbir.gallery.index import MIN_CANDIDATES_PER_HIT, IndexPlan, vector_index_name
from stbir.gallery.int8_codes import Codes, cores, dot_products, encode
from stbir.gallery.ranking import cosines, top_k
from stbir.gallery.rows import FilterResult, Rows, VectorArray
from stbir.gallery.table import ROW_ID, VECTOR

_CODES, _ARRAYS = "codes.i8", "arrays.npz"


class PartitionScan:
    """Codes (N, D) in the order of P partitions, memory-mapped, and for each its row and its scale.

    Memory: D bytes a photo in the page cache, and 8 of its own.
    """

    def __init__(self, folder: Path, plan: IndexPlan) -> None:
        """Open what `write_partitions` has written."""
        self._plan = plan
        with np.load(folder / _ARRAYS) as arrays:
            self._center_PD, self._end_P = arrays["center"], arrays["end"]
            self._row_N, self._scale_N = arrays["row"], arrays["scale"]
        shape = (len(self._row_N), self._center_PD.shape[1])
        # Mode "c": torch refuses arrays that are read-only.
        self._codes_ND: Codes = np.asarray(np.memmap(folder / _CODES, np.int8, "c", shape=shape))
        self._start_P = np.append(0, self._end_P[:-1])

    def candidates(
        self, query_D: Features, k: int, filter: Filter | None, match: FilterResult | None
    ) -> Indices:
        """As in `stbir.gallery.search.CandidateIndex`."""
        limit = self._plan.num_candidates(k)
        with cores():
            if match is None or match.mask is None:
                return self._scan(query_D, limit, self._plan.nprobes, None)
            num_probes = self._plan.num_probes(match.count / len(self._row_N))
            indices = self._scan(query_D, limit, num_probes, match.mask)
            if len(indices) < MIN_CANDIDATES_PER_HIT * k:  # the matches are in other partitions
                indices = self._scan(query_D, limit, len(self._end_P), match.mask)
            return indices

    def _scan(self, query_D: Features, limit: int, num_probes: int, mask: Mask | None) -> Indices:
        """The row indices, ascending, of the `limit` best in the nearest partitions, if the mask is true."""
        parts = [slice(self._start_P[p], self._end_P[p]) for p in self._nearest(query_D, limit, num_probes)]
        codes_1D, _ = encode(query_D[None])
        scores = dot_products([self._codes_ND[part] for part in parts], codes_1D)
        scores *= np.concatenate([self._scale_N[part] for part in parts])
        rows = np.concatenate([self._row_N[part] for part in parts])
        if mask is not None:
            matches = np.flatnonzero(mask[rows])
            scores, rows = scores[matches], rows[matches]
        return np.sort(rows[top_k(scores, limit)]).astype(np.int64)

    def _nearest(self, query_D: Features, limit: int, num_probes: int) -> Indices:
        """At least `num_probes` partitions whose centroids have the highest cosine with the query, and more
        until they have `limit` rows."""
        order = np.argsort(-cosines(self._center_PD, query_D))
        num_rows = (self._end_P - self._start_P)[order].cumsum()
        return order[: max(num_probes, int(np.searchsorted(num_rows, limit)) + 1)]


def write_partitions(dataset: lance.LanceDataset, rows: Rows, photo_ND: VectorArray, folder: Path) -> bool:
    """Write the codes of all rows by partition; False if the index does not cover each row."""
    parts = list(_partitions(dataset, rows))
    row_N = np.concatenate(parts).astype(np.int32)
    if not np.array_equal(np.sort(row_N), np.arange(len(rows))):
        return False
    scale_N, end_P = np.empty(len(rows), np.float32), np.cumsum([*map(len, parts)])
    with (folder / _CODES).open("wb") as out:
        for part, end in zip(parts, end_P, strict=True):
            codes_RD, scale_N[end - len(part) : end] = encode(np.asarray(photo_ND[part]))
            out.write(codes_RD.tobytes())
    has_rows_P = np.array([len(part) > 0 for part in parts])
    center_PD, end_P = _centroids(dataset)[has_rows_P], end_P[has_rows_P]
    np.savez(folder / _ARRAYS, center=center_PD, end=end_P, scale=scale_N, row=row_N)
    return True


def _partitions(dataset: lance.LanceDataset, rows: Rows) -> Iterator[Indices]:
    """The row indices of each partition, ascending."""
    reader = VectorIndexReader(dataset, vector_index_name(dataset))
    for number in range(reader.num_partitions()):
        row_ids = reader.read_partition(number)[ROW_ID].to_numpy()
        yield np.sort(rows.existing(row_ids))


def _centroids(dataset: lance.LanceDataset) -> Features:
    """The centroids (P, D), normalised."""
    centers = dataset.centroids(column=VECTOR)
    center_PD = np.asarray(centers.flatten(), np.float32).reshape(len(centers), -1)
    lengths_P1 = np.linalg.norm(center_PD, axis=1, keepdims=True)
    return np.asarray(center_PD / np.maximum(lengths_P1, np.finfo(np.float32).tiny), np.float32)
