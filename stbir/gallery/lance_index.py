"""Candidates from Lance's own search of its vector index."""

from dataclasses import dataclass

import lance
import numpy as np

from stbir.gallery.arrays import Features, Indices
from stbir.gallery.filters import Filter
from stbir.gallery.index import MIN_CANDIDATES_PER_HIT, IndexPlan
from stbir.gallery.rows import FilterResult, Rows
from stbir.gallery.table import ROW_ID, VECTOR

_MAX_CANDIDATE_BYTES = 2**25  # of the vectors that a query reranks


@dataclass(frozen=True)
class Tables:
    """A version and its index copy, which may lack the columns. `indexed`: the columns with an index."""

    version: lance.LanceDataset
    index_copy: lance.LanceDataset
    indexed: frozenset[str]

    def for_filter(self, filter: Filter | None) -> lance.LanceDataset:
        """The index copy if its indexes cover the filter, else the version."""
        return self.index_copy if filter is None or filter.columns <= self.indexed else self.version


class LanceIndex:
    """Any kind of index, without a local copy of its codes.

    Lance returns row ids only: reading columns takes longer than the index search. Under a filter, it returns
    more candidates, and some do not match; if these would be too many, Lance applies the filter first.
    """

    def __init__(self, tables: Tables, rows: Rows, plan: IndexPlan) -> None:
        self._tables, self._rows, self._plan = tables, rows, plan

    def candidates(
        self, query_D: Features, k: int, filter: Filter | None, match: FilterResult | None
    ) -> Indices:
        """As in `stbir.gallery.search.CandidateIndex`."""
        num_candidates = self._plan.num_candidates(k)
        if filter is None or match is None or match.mask is None:
            return self._search(query_D, num_candidates, 1)
        share = match.count / len(self._rows)
        if num_candidates / share * query_D.nbytes <= _MAX_CANDIDATE_BYTES:
            indices = self._search(query_D, int(num_candidates / share), share)
            indices = indices[match.mask[indices]]
            if len(indices) >= MIN_CANDIDATES_PER_HIT * k:
                return indices  # else the matches are in other partitions
        return self._search(query_D, num_candidates, share, filter)

    def _search(self, query_D: Features, limit: int, share: float, filter: Filter | None = None) -> Indices:
        """Up to `limit` row indices, ascending, from enough partitions if this share of rows matches."""
        nearest = {"column": VECTOR, "q": query_D, "k": limit, "metric": "cosine", "ef": 2 * limit}
        table = self._tables.for_filter(filter).to_table(
            columns=[],
            with_row_id=True,
            # Lance probes more partitions until it has `k` candidates.
            nearest={**nearest, "minimum_nprobes": self._plan.num_probes(share)},
            filter=filter and filter.sql,
            prefilter=True,
            disable_scoring_autoprojection=True,
        )
        return np.sort(self._rows.indices_of(table[ROW_ID].to_numpy()))
