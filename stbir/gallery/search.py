"""The photos nearest to a query by cosine: every one scored, or those that an index names scored again."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import lance
import numpy as np

from stbir.gallery.arrays import Features, Index
from stbir.gallery.filters import Filter
from stbir.gallery.index import IndexPlan
from stbir.gallery.rows import ROW_ID, VECTOR, Matching, Rows, VectorsAt

_SCORES_AT_ONCE = 2**24  # 64 MB of them
_FILTERS_HELD = 8  # of up to FEW vectors
_ENOUGH = 2


@dataclass(frozen=True)
class Tables:
    """The version, and what of it is at hand: a copy that has its indexes, not its columns."""

    whole: lance.LanceDataset
    at_hand: lance.LanceDataset
    indexed: frozenset[str]

    def knowing(self, filter: Filter | None) -> lance.LanceDataset:
        """What can answer to a filter, nearest first."""
        return self.at_hand if filter is None or filter.columns <= self.indexed else self.whole


@dataclass(frozen=True)
class Hit:
    """A photo found; `score` is its cosine with the query, `text` what the catalogue says of it, if any."""

    photo_id: str
    score: float
    category: str
    text: str | None = None


class Searcher(Protocol):
    """Nearest photos of unit vectors (Q, D): k hits each (fewer where there are fewer), best first."""

    def nearest(self, query_QD: Features, k: int, filter: Filter | None) -> list[list[Hit]]:
        """`filter`: what the photos must meet; None: all are asked for."""


class ExactSearch:
    """Every photo is scored. Holds the vectors: 4·D bytes a photo."""

    def __init__(self, dataset: lance.LanceDataset, rows: Rows, photo_ND: Features) -> None:
        self._dataset, self._rows, self._photo_ND = dataset, rows, photo_ND

    def nearest(self, query_QD: Features, k: int, filter: Filter | None) -> list[list[Hit]]:
        """As in Searcher. Ties go in the order of the table."""
        places = None if filter is None else self._rows.matching(self._dataset, filter.text).all_places()
        photo_ND = self._photo_ND if places is None else self._photo_ND[places]
        step = max(1, _SCORES_AT_ONCE // max(1, len(photo_ND)))
        return [
            _hits(self._rows, places, scores_N, k)
            for start in range(0, len(query_QD), step)
            for scores_N in query_QD[start : start + step] @ photo_ND.T
        ]


class IndexSearch:
    """Lance's index names candidates by quantised vectors; these are scored again exactly.

    Nothing but the ids of rows is asked of Lance: reading columns of the candidates would take longer than
    finding them. Where few photos meet a filter, those are all scored; where many do, the candidates are
    the more and lose those that do not.
    """

    def __init__(self, tables: Tables, rows: Rows, photo_ND: VectorsAt, plan: IndexPlan) -> None:
        self._tables, self._rows, self._photo_ND, self._plan = tables, rows, photo_ND, plan
        # Filters come again, a category above all: the vectors of the last few stay.
        self._vectors_of = lru_cache(_FILTERS_HELD)(self._read)

    def nearest(self, query_QD: Features, k: int, filter: Filter | None) -> list[list[Hit]]:
        """As in Searcher."""
        met = None if filter is None else self._rows.matching(self._tables.knowing(filter), filter.text)
        if filter is None or met is None or met.places is None:
            return [self._nearest(query_D, k, filter, met) for query_D in query_QD]
        photo_RD = self._vectors_of(filter)
        return [_hits(self._rows, met.places, photo_RD @ query_D, k) for query_D in query_QD]

    def _read(self, filter: Filter) -> Features:
        met = self._rows.matching(self._tables.knowing(filter), filter.text)
        return np.asarray(self._photo_ND[met.all_places()])

    def _nearest(self, query_D: Features, k: int, filter: Filter | None, met: Matching | None) -> list[Hit]:
        places = self._candidates(query_D, k, 1 if met is None else met.count / len(self._rows))
        if filter is not None and met is not None and met.mask is not None:
            places = places[met.mask[places]]
            if len(places) < _ENOUGH * k:  # what meets the filter lies elsewhere
                places = self._candidates(query_D, k, 1, filter)
        return _hits(self._rows, places, np.asarray(self._photo_ND[places]) @ query_D, k)

    def _candidates(self, query_D: Features, k: int, share: float, filter: Filter | None = None) -> Index:
        """The places of candidates, ascending: so many that `share` of them is enough."""
        wanted = int(self._plan.candidates(k) / share)
        near = {"column": VECTOR, "q": query_D, "k": wanted, "metric": "cosine", "ef": 2 * wanted}
        found = self._tables.knowing(filter).to_table(
            columns=[],
            with_row_id=True,
            # At least so many parts; more as long as too few photos are found in them.
            nearest={**near, "minimum_nprobes": int(self._plan.nprobes / share**0.5)},
            filter=filter and filter.text,
            prefilter=True,
            disable_scoring_autoprojection=True,
        )
        return np.sort(self._rows.places(found[ROW_ID].to_numpy()))


def _hits(rows: Rows, places: Index | None, scores_N: Features, k: int) -> list[Hit]:
    """The k best of the photos at `places` (None: all), to which the scores belong."""
    best = top(scores_N, k)
    where = best if places is None else places[best]
    photo_ids, categories = rows.photo_ids.take(where).to_pylist(), rows.categories.take(where).to_pylist()
    hits = zip(photo_ids, scores_N[best].tolist(), categories, rows.texts.at(where), strict=True)
    return [Hit(*hit) for hit in hits]


def top(scores_N: Features, k: int) -> Index:
    """The columns of the k best scores, best first; ties in their order."""
    if k < len(scores_N):
        kth = np.partition(scores_N, len(scores_N) - k)[len(scores_N) - k]
        contenders = np.flatnonzero(scores_N >= kth)
    else:
        contenders = np.arange(len(scores_N))
    order = np.argsort(-scores_N[contenders], kind="stable")[:k]
    return np.asarray(contenders[order], np.int64)
