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
from stbir.gallery.rows import FilterResult, Rows, VectorArray

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


class RowLookup(Protocol):
    """The rows of a version by their position in the table."""

    def __len__(self) -> int:
        """The number of rows."""

    def index_of(self, photo_id: str) -> int | None:
        """The position of a photo; None for an unknown id."""

    def ids(self, indices: Indices) -> list[str]:
        """The photo ids of rows."""

    def fields(self, indices: Indices) -> list[tuple[str, str, str | None]]:
        """Photo id, category and caption of rows."""

    def category_counts(self) -> dict[str, int]:
        """The number of photos of each category."""


@dataclass(frozen=True)
class OpenVersion:
    """A version that is open for search. `resource` is what its store keeps open as long as this object."""

    rows: RowLookup
    vectors: VectorArray
    searcher: Searcher
    unindexed_count: int
    resource: object


class CandidateIndex(Protocol):
    """A quantised index: `stbir.gallery.partition_scan`, or Lance's (`stbir.gallery.lance_index`)."""

    def candidates(
        self, query_D: Features, k: int, filter: Filter | None, match: FilterResult | None
    ) -> Indices:
        """Row indices, ascending, that are likely to have the k best rows; `match` has a mask."""


class IndexSearch:
    """Reranks the candidates of a quantised index by their exact cosine; scores all matches of a filter that
    has few."""

    def __init__(self, tables: Tables, rows: Rows, photo_ND: VectorArray, index: CandidateIndex) -> None:
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


def to_hits(rows: RowLookup, ranking: Ranking) -> list[Hit]:
    """The hits of a ranking, in its order."""
    fields = rows.fields(ranking.indices)
    return [
        Hit(photo_id, score, category, caption)
        for (photo_id, category, caption), score in zip(fields, ranking.scores.tolist(), strict=True)
    ]
