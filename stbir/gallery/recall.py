"""Recall@k of a gallery's search against exact search, over several kinds of queries."""

from collections.abc import Mapping

import lance
import numpy as np

from stbir.gallery.arrays import Features
from stbir.gallery.gallery import Gallery
from stbir.gallery.rows import VECTOR, TableVectors, extract_vectors
from stbir.gallery.search import Hit

RECALL_KS = (1, 10, 100)
MIN_RECALL_K = 10  # the k at which publishing requires a minimum recall
_NUM_QUERIES = 100
# Cosines that differ by less count as ties: the order of summation changes them by as much.
_TOLERANCE = 1e-5
# A typical cosine between a sketch and its photo.
_SKETCH_COSINE = 0.6
Recalls = dict[str, dict[str, float]]


def make_recall_queries(
    dataset: lance.LanceDataset, extra: Mapping[str, Features] | None = None
) -> dict[str, Features]:
    """Queries (Q, D) by kind: synthetic ones from photos of the table, and `extra` real ones.

    photo: photos of the table. between: normalised means of two photos. drawn: photos with noise, at the
    typical distance between a sketch and its photo.
    """
    rng = np.random.default_rng(0)
    indices = rng.integers(dataset.count_rows(), size=(3, _NUM_QUERIES))
    unique, inverse = np.unique(indices, return_inverse=True)
    photo_3QD = TableVectors(dataset)[unique][inverse.reshape(indices.shape)]
    noise_QD = _normalize(rng.normal(size=photo_3QD[0].shape))
    synthetic = {
        "photo": photo_3QD[0],
        "between": _normalize(photo_3QD[1] + photo_3QD[2]),
        "drawn": _normalize(_SKETCH_COSINE * photo_3QD[0] + (1 - _SKETCH_COSINE**2) ** 0.5 * noise_QD),
    }
    return synthetic | {kind: _normalize(query_QD) for kind, query_QD in (extra or {}).items()}


class RecallEvaluator:
    """Computes the ground truth of the queries once, then the recall of any search."""

    def __init__(self, dataset: lance.LanceDataset, queries: Mapping[str, Features]) -> None:
        self._queries = dict(queries)
        truth_QK = exact_scores(dataset, np.concatenate(list(queries.values())), max(RECALL_KS))
        ends = np.cumsum([len(query_QD) for query_QD in queries.values()])
        self._truth = dict(zip(queries, np.split(truth_QK, ends[:-1]), strict=True))

    def evaluate(self, gallery: Gallery) -> Recalls:
        """Recall by kind of query and `@k`; k is at most the number of photos."""
        return {kind: self._evaluate_kind(gallery, kind) for kind in self._queries}

    def _evaluate_kind(self, gallery: Gallery, kind: str) -> dict[str, float]:
        query_QD, truth_QK = self._queries[kind], self._truth[kind]
        ten, hundred = (gallery.search(query_QD, k) for k in RECALL_KS[1:])
        one = [hits[:1] for hits in ten]
        results = zip(RECALL_KS, (one, ten, hundred), strict=True)
        return {f"@{k}": _recall(hits, truth_QK[:, :k]) for k, hits in results}


def worst_recall(recalls: Recalls) -> float:
    """The lowest recall@MIN_RECALL_K of all kinds of queries."""
    return min(each[f"@{MIN_RECALL_K}"] for each in recalls.values())


def exact_scores(dataset: lance.LanceDataset, query_QD: Features, k: int) -> Features:
    """The k best cosines of each query, descending, (Q, min(k, N)). Reads the table once, batch by batch."""
    best_QK = np.empty((len(query_QD), 0), np.float32)
    for batch in dataset.to_batches(columns=[VECTOR]):
        scores = np.concatenate([best_QK, query_QD @ extract_vectors(batch).T], axis=1)
        best_QK = scores if scores.shape[1] <= k else -np.partition(-scores, k - 1, axis=1)[:, :k]
    return -np.sort(-best_QK, axis=1)


def _recall(hits_Q: list[list[Hit]], truth_QK: Features) -> float:
    counts = [
        sum(hit.score >= truth_K[-1] - _TOLERANCE for hit in hits)
        for hits, truth_K in zip(hits_Q, truth_QK, strict=True)
    ]
    return float(sum(counts) / truth_QK.size)


def _normalize(vectors: Features) -> Features:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
