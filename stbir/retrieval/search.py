"""The photos nearest to a query by cosine: exactly in memory, or through an index on disk."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import lance
import numpy as np
import pyarrow as pa

from stbir.retrieval.embed import Features
from stbir.retrieval.queries import Index

VECTOR = "embedding"
# The index answers from quantised vectors; so many times k candidates are scored again exactly.
_CANDIDATES = 4
_LEAST_CANDIDATES = 64


@dataclass(frozen=True)
class Hit:
    """A photo found; `score` is its cosine with the query."""

    photo_id: str
    score: float
    category: str


class Searcher(Protocol):
    """Nearest photos of unit vectors (Q, D): min(k, photos of the category) hits each, best first."""

    def nearest(self, query_QD: Features, k: int, category: str | None) -> list[list[Hit]]:
        """`category`: one that the gallery holds, or None for all."""


class ExactSearch:
    """Every photo is scored. Holds the vectors: 4·D bytes a photo."""

    def __init__(self, table: pa.Table) -> None:
        self._photo_ids: list[str] = table["photo_id"].to_pylist()
        self._categories: list[str] = table["category"].to_pylist()
        self._photo_ND = vectors(table)

    def nearest(self, query_QD: Features, k: int, category: str | None) -> list[list[Hit]]:
        """As in Searcher. Ties go in the order of the table."""
        rows = self._rows_of[category]
        scores_QN = (query_QD @ self._photo_ND.T)[:, rows]
        return [self._hits(rows, scores_N, k) for scores_N in scores_QN]

    def _hits(self, rows: Index, scores_N: Features, k: int) -> list[Hit]:
        best = top(scores_N, k)
        return [Hit(self._photo_ids[rows[i]], float(scores_N[i]), self._categories[rows[i]]) for i in best]

    @cached_property
    def _rows_of(self) -> dict[str | None, Index]:
        categories = np.array(self._categories)
        rows_of: dict[str | None, Index] = {None: np.arange(len(categories))}
        for name in set(self._categories):
            rows_of[name] = np.flatnonzero(categories == name)
        return rows_of


class IndexSearch:
    """Lance's index names candidates, which are scored again exactly. Holds no vectors."""

    def __init__(self, dataset: lance.LanceDataset, nprobes: int) -> None:
        self._dataset, self._nprobes = dataset, nprobes

    def nearest(self, query_QD: Features, k: int, category: str | None) -> list[list[Hit]]:
        """As in Searcher."""
        return [self._nearest(query_D, k, category) for query_D in query_QD]

    def _nearest(self, query_D: Features, k: int, category: str | None) -> list[Hit]:
        table = self._candidates(query_D, k, category, use_index=True)
        if len(table) < k:  # under a narrow filter the graph of the index may run dry
            table = self._candidates(query_D, k, category, use_index=False)
        scores_C = vectors(table) @ query_D
        photo_ids, categories = table["photo_id"].to_pylist(), table["category"].to_pylist()
        return [Hit(photo_ids[i], float(scores_C[i]), categories[i]) for i in top(scores_C, k)]

    def _candidates(self, query_D: Features, k: int, category: str | None, use_index: bool) -> pa.Table:
        wanted = max(_CANDIDATES * k, _LEAST_CANDIDATES)
        near = {"column": VECTOR, "q": query_D, "k": wanted, "metric": "cosine", "nprobes": self._nprobes}
        return self._dataset.to_table(
            columns=["photo_id", "category", VECTOR, "_distance"],
            nearest={**near, "ef": 2 * wanted, "use_index": use_index},
            filter=None if category is None else f"category = {_quoted(category)}",
            prefilter=True,
        )


def top(scores_N: Features, k: int) -> Index:
    """The columns of the k best scores, best first; ties in their order."""
    if k < len(scores_N):
        kth = np.partition(scores_N, len(scores_N) - k)[len(scores_N) - k]
        contenders = np.flatnonzero(scores_N >= kth)
    else:
        contenders = np.arange(len(scores_N))
    order = np.argsort(-scores_N[contenders], kind="stable")[:k]
    return np.asarray(contenders[order], np.int64)


def vectors(table: pa.Table | pa.RecordBatch) -> Features:
    """The embeddings of some rows, (N, D)."""
    column = table[VECTOR]
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(flat.flatten(), np.float32).reshape(len(table), column.type.list_size)


def _quoted(text: str) -> str:
    """A string literal of SQL."""
    return "'" + text.replace("'", "''") + "'"
