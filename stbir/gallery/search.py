"""The photos nearest to a query by cosine: exact search, or an index search with exact reranking."""

from dataclasses import dataclass
from typing import Protocol

import lance
import numpy as np
from numpy.typing import NDArray

from stbir.gallery.arrays import Features, Indices
from stbir.gallery.filter_cache import FilterCache
from stbir.gallery.filters import Filter
from stbir.gallery.index import IndexPlan
from stbir.gallery.rows import ROW_ID, VECTOR, FilterResult, Rows, VectorStore

_MAX_SCORES = 2**24  # in one matrix product; 64 MB
_VECTOR_CACHE_BYTES = 2**28  # for the vectors of selective filters
_MIN_CANDIDATES_PER_HIT = 2
_MAX_CANDIDATE_BYTES = 2**25  # of the vectors that a query reranks
# Scoring all rows takes as long as copying this share of them.
_MAX_COPIED_SHARE = 0.25


@dataclass(frozen=True)
class Tables:
    """A version and its index copy, which may lack the columns. `indexed`: the columns with an index."""

    version: lance.LanceDataset
    index_copy: lance.LanceDataset
    indexed: frozenset[str]

    def for_filter(self, filter: Filter | None) -> lance.LanceDataset:
        """The index copy if its indexes cover the filter, else the version."""
        return self.index_copy if filter is None or filter.columns <= self.indexed else self.version


@dataclass(frozen=True)
class Hit:
    """One search result. `score`: cosine with the query; `text`: the photo's caption, if it has one.

    `count`: the photos that this hit stands for, itself included; `duplicates`: the ids of the others, see
    `stbir.gallery.steering`. `match`: see `stbir.embedding.match_probability`; None if it is unknown.
    """

    photo_id: str
    score: float
    category: str
    text: str | None = None
    count: int = 1
    duplicates: tuple[str, ...] = ()
    match: float | None = None


@dataclass(frozen=True)
class Ranking:
    """Row indices (R,), best first, and their scores (R,)."""

    indices: Indices
    scores: Features

    def __len__(self) -> int:
        return len(self.indices)

    def select(self, rows: Indices | NDArray[np.bool_]) -> "Ranking":
        """The part at these positions, or where a mask is true."""
        return Ranking(self.indices[rows], self.scores[rows])


class Searcher(Protocol):
    """Nearest-neighbour search with unit vectors (Q, D)."""

    def nearest(self, query_QD: Features, k: int, filter: Filter | None) -> list[Ranking]:
        """The k best rows a query, or fewer, among those that match the filter."""


class ExactSearch:
    """Scores every photo. Holds all vectors in memory: 4·D bytes a photo."""

    def __init__(self, dataset: lance.LanceDataset, rows: Rows, photo_ND: Features) -> None:
        self._dataset, self._rows, self._photo_ND = dataset, rows, photo_ND

    def nearest(self, query_QD: Features, k: int, filter: Filter | None) -> list[Ranking]:
        """As in Searcher. Ties keep the order of the table."""
        if filter is None:
            return self._nearest(query_QD, k, self._photo_ND, None)
        indices = self._rows.apply_filter(self._dataset, filter.sql).to_indices()
        if len(indices) <= _MAX_COPIED_SHARE * len(self._rows):
            return self._nearest(query_QD, k, self._photo_ND[indices], indices)
        return self._nearest(query_QD, k, self._photo_ND, indices)

    def _nearest(
        self, query_QD: Features, k: int, photo_ND: Features, indices: Indices | None
    ) -> list[Ranking]:
        """The best among the rows `indices` (None: all), where `photo_ND` are the vectors of these or all."""
        is_selection = indices is not None and len(indices) < len(photo_ND)
        step = max(1, _MAX_SCORES // max(1, len(photo_ND)))
        return [
            _best(indices, scores_N[indices] if is_selection else scores_N, k)
            for start in range(0, len(query_QD), step)
            for scores_N in query_QD[start : start + step] @ photo_ND.T
        ]


class IndexSearch:
    """Reranks the candidates of Lance's quantised index by their exact cosine.

    Lance returns row ids only: reading columns takes longer than the index search. The matches of a selective
    filter are all scored. With other filters, the index returns more candidates, and some do not match; if
    these would be too many, Lance applies the filter first.
    """

    def __init__(self, tables: Tables, rows: Rows, photo_ND: VectorStore, plan: IndexPlan) -> None:
        self._tables, self._rows, self._photo_ND, self._plan = tables, rows, photo_ND, plan
        # Filters repeat, the category above all.
        self._filtered = FilterCache[Features](_VECTOR_CACHE_BYTES, lambda vectors: vectors.nbytes)

    def nearest(self, query_QD: Features, k: int, filter: Filter | None) -> list[Ranking]:
        """As in Searcher."""
        match = None if filter is None else self._apply(filter)
        if filter is None or match is None or match.indices is None:
            return [self._rerank(query_D, k, filter, match) for query_D in query_QD]
        photo_RD = self._filtered.get(filter.sql, lambda: self._read_vectors(match))
        return [_best(match.indices, photo_RD @ query_D, k) for query_D in query_QD]

    def _apply(self, filter: Filter) -> FilterResult:
        return self._rows.apply_filter(self._tables.for_filter(filter), filter.sql)

    def _read_vectors(self, match: FilterResult) -> Features:
        return np.asarray(self._photo_ND[match.to_indices()])

    def _rerank(
        self, query_D: Features, k: int, filter: Filter | None, match: FilterResult | None
    ) -> Ranking:
        share = 1 if match is None else match.count / len(self._rows)
        num_candidates = self._plan.num_candidates(k)
        if filter is None or match is None or match.mask is None:
            indices = self._candidates(query_D, num_candidates, 1)
        elif num_candidates / share * query_D.nbytes > _MAX_CANDIDATE_BYTES:
            indices = self._candidates(query_D, num_candidates, share, filter)
        else:
            indices = self._candidates(query_D, int(num_candidates / share), share)
            indices = indices[match.mask[indices]]
            if len(indices) < _MIN_CANDIDATES_PER_HIT * k:  # the matches are in other partitions
                indices = self._candidates(query_D, num_candidates, share, filter)
        return _best(indices, np.asarray(self._photo_ND[indices]) @ query_D, k)

    def _candidates(
        self, query_D: Features, limit: int, share: float, filter: Filter | None = None
    ) -> Indices:
        """Up to `limit` row indices, ascending, from enough partitions if this share of rows matches."""
        nearest = {"column": VECTOR, "q": query_D, "k": limit, "metric": "cosine", "ef": 2 * limit}
        table = self._tables.for_filter(filter).to_table(
            columns=[],
            with_row_id=True,
            # Lance probes more partitions until it has `k` candidates.
            nearest={**nearest, "minimum_nprobes": int(self._plan.nprobes / share**0.5)},
            filter=filter and filter.sql,
            prefilter=True,
            disable_scoring_autoprojection=True,
        )
        return np.sort(self._rows.indices_of(table[ROW_ID].to_numpy()))


def to_hits(rows: Rows, ranking: Ranking) -> list[Hit]:
    """The hits of a ranking, in its order."""
    photo_ids = rows.photo_ids.take(ranking.indices).to_pylist()
    categories = rows.categories.take(ranking.indices).to_pylist()
    captions = rows.captions(ranking.indices)
    columns = zip(photo_ids, ranking.scores.tolist(), categories, captions, strict=True)
    return [Hit(*values) for values in columns]


def _best(indices: Indices | None, scores_N: Features, k: int) -> Ranking:
    """The k best of the rows `indices` (None: all rows), whose scores are `scores_N`."""
    best = top_k(scores_N, k)
    return Ranking(best if indices is None else indices[best], scores_N[best])


def top_k(scores_N: Features, k: int) -> Indices:
    """The positions of the k best scores, best first; ties keep their order."""
    if k < len(scores_N):
        kth = np.partition(scores_N, len(scores_N) - k)[len(scores_N) - k]
        candidates = np.flatnonzero(scores_N >= kth)
    else:
        candidates = np.arange(len(scores_N))
    order = np.argsort(-scores_N[candidates], kind="stable")[:k]
    return np.asarray(candidates[order], np.int64)
