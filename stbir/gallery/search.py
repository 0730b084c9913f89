"""The photos nearest to a query by cosine: exact search, or an index search with exact reranking."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stbir.gallery.arrays import Features, Indices
from stbir.gallery.exact_search import VectorScan
from stbir.gallery.filter_cache import FilterCache
from stbir.gallery.filters import Filter
from stbir.gallery.lance_index import Tables
from stbir.gallery.ranking import Ranking, cosines, rank
from stbir.gallery.rows import FilterResult, Rows, VectorStore

_VECTOR_CACHE_BYTES = 2**28  # for the vectors of selective filters


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


class Searcher(Protocol):
    """Nearest-neighbour search with unit vectors (Q, D)."""

    def nearest(self, query_QD: Features, k: int, filter: Filter | None) -> list[Ranking]:
        """The k best rows a query, or fewer, among those that match the filter."""


class CandidateIndex(Protocol):
    """A quantised index: `stbir.gallery.partition_scan`, or Lance's (`stbir.gallery.lance_index`)."""

    def candidates(
        self, query_D: Features, k: int, filter: Filter | None, match: FilterResult | None
    ) -> Indices:
        """Row indices, ascending, that are likely to have the k best rows; `match` has a mask."""


class IndexSearch:
    """Reranks the candidates of a quantised index by their exact cosine; scores all matches of a filter that
    has few."""

    def __init__(self, tables: Tables, rows: Rows, photo_ND: VectorStore, index: CandidateIndex) -> None:
        self._tables, self._rows, self._photo_ND, self._index = tables, rows, photo_ND, index
        # Filters repeat, the category above all.
        self._filtered = FilterCache[VectorScan](_VECTOR_CACHE_BYTES, lambda scan: scan.num_bytes)

    def nearest(self, query_QD: Features, k: int, filter: Filter | None) -> list[Ranking]:
        """As in Searcher."""
        if filter is None:
            return [self._rerank(query_D, k, None, None) for query_D in query_QD]
        match = self._rows.apply_filter(self._tables.for_filter(filter), filter.sql)
        if match.indices is None:
            return [self._rerank(query_D, k, filter, match) for query_D in query_QD]
        return self._score_all(query_QD, k, filter, match.indices)

    def _score_all(self, query_QD: Features, k: int, filter: Filter, indices: Indices) -> list[Ranking]:
        """The rankings of the rows that match the filter."""
        scan = self._filtered.get(filter.sql, lambda: VectorScan(np.asarray(self._photo_ND[indices])))
        rankings = [scan.nearest(query_D, k) for query_D in query_QD]
        return [Ranking(indices[each.indices], each.scores) for each in rankings]

    def _rerank(
        self, query_D: Features, k: int, filter: Filter | None, match: FilterResult | None
    ) -> Ranking:
        indices = self._index.candidates(query_D, k, filter, match)
        return rank(indices, cosines(np.asarray(self._photo_ND[indices]), query_D), k)


def to_hits(rows: Rows, ranking: Ranking) -> list[Hit]:
    """The hits of a ranking, in its order."""
    photo_ids = rows.photo_ids.take(ranking.indices).to_pylist()
    categories = rows.categories.take(ranking.indices).to_pylist()
    captions = rows.captions(ranking.indices)
    columns = zip(photo_ids, ranking.scores.tolist(), categories, captions, strict=True)
    return [Hit(*values) for values in columns]
