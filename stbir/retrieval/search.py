"""The photos nearest to a query by cosine: every one scored, or those that an index names scored again."""

from dataclasses import dataclass
from typing import Protocol

import lance
import numpy as np

from stbir.retrieval.embed import Features
from stbir.retrieval.index import IndexPlan
from stbir.retrieval.queries import Index
from stbir.retrieval.rows import ROW_ID, VECTOR, Rows, VectorsAt

# Up to so many photos that meet a filter are all scored: reading them takes milliseconds, and an index
# would look for them among the photos that do not.
_FEW = 20_000
_SCORES_AT_ONCE = 2**24  # 64 MB of them


@dataclass(frozen=True)
class Hit:
    """A photo found; `score` is its cosine with the query."""

    photo_id: str
    score: float
    category: str


class Searcher(Protocol):
    """Nearest photos of unit vectors (Q, D): k hits each (fewer where there are fewer), best first."""

    def nearest(self, query_QD: Features, k: int, filter: str | None) -> list[list[Hit]]:
        """`filter`: as `condition.rendered` writes it, or None for all photos."""


class ExactSearch:
    """Every photo is scored. Holds the vectors: 4·D bytes a photo."""

    def __init__(self, rows: Rows, photo_ND: Features) -> None:
        self._rows, self._photo_ND = rows, photo_ND

    def nearest(self, query_QD: Features, k: int, filter: str | None) -> list[list[Hit]]:
        """As in Searcher. Ties go in the order of the table."""
        places = None if filter is None else self._rows.matching(filter, len(self._rows))
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
    finding them.
    """

    def __init__(self, dataset: lance.LanceDataset, rows: Rows, photo_ND: VectorsAt, plan: IndexPlan) -> None:
        self._dataset, self._rows, self._photo_ND, self._plan = dataset, rows, photo_ND, plan

    def nearest(self, query_QD: Features, k: int, filter: str | None) -> list[list[Hit]]:
        """As in Searcher."""
        few = None if filter is None else self._rows.matching(filter, _FEW)
        return [self._nearest(query_D, k, filter, few) for query_D in query_QD]

    def _nearest(self, query_D: Features, k: int, filter: str | None, few: Index | None) -> list[Hit]:
        places = self._candidates(query_D, k, filter) if few is None else few
        return _hits(self._rows, places, self._photo_ND[places] @ query_D, k)

    def _candidates(self, query_D: Features, k: int, filter: str | None) -> Index:
        wanted = self._plan.candidates(k)
        near = {"column": VECTOR, "q": query_D, "k": wanted, "metric": "cosine", "ef": 2 * wanted}
        found = self._dataset.to_table(
            columns=[],
            with_row_id=True,
            # At least so many parts; more as long as too few photos meet the filter.
            nearest={**near, "minimum_nprobes": self._plan.nprobes},
            filter=filter,
            prefilter=True,
            disable_scoring_autoprojection=True,
        )
        return np.sort(self._rows.places(found[ROW_ID].to_numpy()))


def _hits(rows: Rows, places: Index | None, scores_N: Features, k: int) -> list[Hit]:
    """The k best of the photos at `places` (None: all), to which the scores belong."""
    best = top(scores_N, k)
    where = best if places is None else places[best]
    photo_ids, categories = rows.photo_ids.take(where).to_pylist(), rows.categories.take(where).to_pylist()
    return [Hit(*hit) for hit in zip(photo_ids, scores_N[best].tolist(), categories, strict=True)]


def top(scores_N: Features, k: int) -> Index:
    """The columns of the k best scores, best first; ties in their order."""
    if k < len(scores_N):
        kth = np.partition(scores_N, len(scores_N) - k)[len(scores_N) - k]
        contenders = np.flatnonzero(scores_N >= kth)
    else:
        contenders = np.arange(len(scores_N))
    order = np.argsort(-scores_N[contenders], kind="stable")[:k]
    return np.asarray(contenders[order], np.int64)
