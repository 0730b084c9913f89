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
from stbir.gallery.int8_codes import Codes, dot_products, encode
from stbir.gallery.ranking import top_k
from stbir.gallery.rows import ROW_ID, FilterResult, Rows, VectorStore

_CODES, _ARRAYS = "codes.i8", "arrays.npz"


class PartitionScan:
    """Codes (N, D) in the order of P partitions, memory-mapped, and for each its row and its scale.

    Memory: D bytes a photo in the page cache, and 8 of its own.
    """

    def __init__(self, folder: Path, plan: IndexPlan) -> None:
        """Open what `write_partitions` has written."""
        self._plan = plan
        with np.load(folder / _ARRAYS) as arrays:
            self._mean_PD, self._end_P = arrays["mean"], arrays["end"]
            self._row_N, self._scale_N = arrays["row"], arrays["scale"]
        shape = (len(self._row_N), self._mean_PD.shape[1])
        # Mode "c": torch refuses arrays that are read-only.
        self._codes_ND: Codes = np.asarray(np.memmap(folder / _CODES, np.int8, "c", shape=shape))
        self._start_P = np.append(0, self._end_P[:-1])
        self._square_P = (self._mean_PD**2).sum(axis=1)

    def candidates(
        self, query_D: Features, k: int, filter: Filter | None, match: FilterResult | None
    ) -> Indices:
        """As in `stbir.gallery.search.CandidateIndex`."""
        limit = self._plan.num_candidates(k)
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
            is_match = mask[rows]
            scores, rows = scores[is_match], rows[is_match]
        return np.sort(rows[top_k(scores, limit)]).astype(np.int64)

    def _nearest(self, query_D: Features, limit: int, num_probes: int) -> Indices:
        """The partitions whose means are nearest to the query by Euclidean distance, at least `num_probes`,
        and more until they have `limit` rows."""
        order = np.argsort(self._square_P - 2 * np.vecdot(self._mean_PD, query_D))
        num_rows = (self._end_P - self._start_P)[order].cumsum()
        return order[: max(num_probes, int(np.searchsorted(num_rows, limit)) + 1)]


def write_partitions(dataset: lance.LanceDataset, rows: Rows, photo_ND: VectorStore, folder: Path) -> bool:
    """Write the codes of all rows by partition; False if the index does not cover each row."""
    means, sizes, indices, scales = [], [], [], []
    with (folder / _CODES).open("wb") as out:
        for part in _partitions(dataset, rows):
            photo_RD = np.asarray(photo_ND[part])
            codes_RD, scale_R = encode(photo_RD)
            out.write(codes_RD.tobytes())
            means.append(photo_RD.mean(axis=0))
            sizes.append(len(part))
            indices.append(part.astype(np.int32))
            scales.append(scale_R)
    row_N = np.concatenate([*indices, np.empty(0, np.int32)])
    if not np.array_equal(np.sort(row_N), np.arange(len(rows))):
        return False
    mean_PD, scale_N = np.stack(means), np.concatenate(scales)
    np.savez(folder / _ARRAYS, mean=mean_PD, end=np.cumsum(sizes), scale=scale_N, row=row_N)
    return True


def _partitions(dataset: lance.LanceDataset, rows: Rows) -> Iterator[Indices]:
    """The row indices of each partition that has rows, ascending."""
    reader = VectorIndexReader(dataset, vector_index_name(dataset))
    for number in range(reader.num_partitions()):
        row_ids = reader.read_partition(number)[ROW_ID].to_numpy()
        if len(part := rows.existing(row_ids)):
            yield np.sort(part)
