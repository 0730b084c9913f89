"""Recall@k of a gallery's search against exact search, over several kinds of queries and filters."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa

from stbir.gallery.arrays import Features
from stbir.gallery.filters import Condition, Filter, render_filter
from stbir.gallery.gallery import Gallery
from stbir.gallery.rows import TableVectors, extract_vectors
from stbir.gallery.search import Hit
from stbir.gallery.table import VECTOR, Table, scan

RECALL_KS = (1, 10, 100)
MIN_RECALL_K = 10  # the k at which publishing requires a minimum recall
_NUM_QUERIES = 100
# Cosines that differ by less count as ties: the order of summation changes them by as much.
_TOLERANCE = 1e-5
# A typical cosine between a sketch and its photo.
_SKETCH_COSINE = 0.6
DRAWN = "drawn"  # the kind of queries that filters and latencies are measured with
_FILTER_SHARES = (0.5, 0.01, 0.001)
_Z_95 = 1.96
_MAX_FILTER_SAMPLES = 100_000  # photos whose values set the limits of the filters
Recalls = dict[str, dict[str, float]]
# Table, queries (Q, D), k, filter → exact scores (Q, K).
ExactScorer = Callable[[Table, Features, int, Filter | None], Features]


def make_recall_queries(table: Table, extra: Mapping[str, Features] | None = None) -> dict[str, Features]:
    """Queries (Q, D) by kind: synthetic ones from photos of the table, and `extra` real ones.

    photo: photos of the table. between: normalised means of two photos. drawn: photos with noise, at the
    typical distance between a sketch and its photo.
    """
    rng = np.random.default_rng(0)
    num_rows = table.count_rows()
    indices = rng.integers(max(1, num_rows), size=(3, min(num_rows * _NUM_QUERIES, _NUM_QUERIES)))
    unique, inverse = np.unique(indices, return_inverse=True)
    photo_3QD = TableVectors(table)[unique][inverse.reshape(indices.shape)]
    noise_QD = _normalize(rng.normal(size=photo_3QD[0].shape))
    synthetic = {
        "photo": photo_3QD[0],
        "between": _normalize(photo_3QD[1] + photo_3QD[2]),
        DRAWN: _normalize(_SKETCH_COSINE * photo_3QD[0] + (1 - _SKETCH_COSINE**2) ** 0.5 * noise_QD),
    }
    return synthetic | {kind: _normalize(query_QD) for kind, query_QD in (extra or {}).items()}


def share_filters(table: Table) -> dict[str, list[Condition]]:
    """Filters by name that keep about 50, 1 and 0.1 % of the photos, independent of what these show."""
    # A hash of the photo's bytes; imports may lack it.
    has_content = "content" in table.schema.names and pa.types.is_string(table.schema.field("content").type)
    column = "content" if has_content else "photo_id"
    step = max(1, table.count_rows() // _MAX_FILTER_SAMPLES)
    batches = (batch[column] for batch in table.to_batches(columns=[column]))
    samples = (batch.take(np.arange(0, len(batch), step)).drop_null().to_pylist() for batch in batches)
    values = sorted(chain.from_iterable(samples))
    filters = {}
    for share in _FILTER_SHARES if len(values) else ():
        limit = values[math.ceil(share * len(values)) - 1]
        if "\0" not in limit:  # filters refuse it
            filters[f"filter {share:.1%}"] = [Condition(column, "le", limit)]
    return filters


def exact_scores(
    table: Table,
    query_QD: Features,
    k: int,
    filter: Filter | None = None,
    fragments: list[int] | None = None,
) -> Features:
    """The k best cosines of each query among the N matches of a filter, descending, (Q, min(k, N)). Reads the
    table once, batch by batch, or some of its fragments (`stbir.gallery.table.fragment_ids`)."""
    best_QK = np.empty((len(query_QD), 0), np.float32)
    for batch in scan(table, [VECTOR], filter, fragments):
        best_QK = best_scores(np.concatenate([best_QK, query_QD @ extract_vectors(batch).T], axis=1), k)
    return best_QK


def best_scores(score_QN: Features, k: int) -> Features:
    """The k best scores of each query, descending, (Q, min(k, N))."""
    best_QK = score_QN if score_QN.shape[1] <= k else -np.partition(-score_QN, k - 1, axis=1)[:, :k]
    return -np.sort(-best_QK, axis=1)


@dataclass(frozen=True)
class _Truth:
    """Queries (Q, D) under a filter, and their best exact scores (Q, K), descending."""

    query_QD: Features
    where: list[Condition]
    score_QK: Features


class RecallEvaluator:
    """Computes the ground truth of the queries once, then the recall of any search."""

    def __init__(
        self,
        table: Table,
        queries: Mapping[str, Features],
        filters: Mapping[str, list[Condition]] | None = None,
        scorer: ExactScorer = exact_scores,
    ) -> None:
        """The queries of kind DRAWN are measured again under each of `filters`."""
        scores_QK = scorer(table, np.concatenate(list(queries.values())), max(RECALL_KS), None)
        ends = np.cumsum([len(query_QD) for query_QD in queries.values()])
        split = zip(queries.items(), np.split(scores_QK, ends[:-1]), strict=True)
        self._truths = {kind: _Truth(query_QD, [], score_QK) for (kind, query_QD), score_QK in split}
        for name, where in (filters or {}).items():
            filter = render_filter(where, table.schema)
            score_QK = scorer(table, queries[DRAWN], max(RECALL_KS), filter)
            self._truths[name] = _Truth(queries[DRAWN], where, score_QK)

    def evaluate(self, gallery: Gallery) -> Recalls:
        """Recall by kind of query or filter, and `@k`; k is at most the number of matches."""
        return {kind: _evaluate(gallery, truth) for kind, truth in self._truths.items()}


def _evaluate(gallery: Gallery, truth: _Truth) -> dict[str, float]:
    ten, hundred = (gallery.search(truth.query_QD, k, where=truth.where) for k in RECALL_KS[1:])
    results = zip(RECALL_KS, ([hits[:1] for hits in ten], ten, hundred), strict=True)
    return {f"@{k}": _recall(hits, truth.score_QK[:, :k]) for k, hits in results}


def recall_interval(recalls: Recalls, num_queries: int) -> tuple[float, float]:
    """The 95 % interval of the worst recall over a sample of queries (Wilson 1927). Hits of a query are not
    independent, so that a query counts as one trial: the interval is wide rather than narrow."""
    if not num_queries:
        return 0.0, 1.0  # an empty gallery
    recall, z2 = worst_recall(recalls), _Z_95**2
    center = (recall + z2 / (2 * num_queries)) / (1 + z2 / num_queries)
    width = math.sqrt(z2 * recall * (1 - recall) / num_queries + (z2 / (2 * num_queries)) ** 2)
    width /= 1 + z2 / num_queries
    return max(0.0, round(center - width, 4)), min(1.0, round(center + width, 4))


def worst_recall(recalls: Recalls) -> float:
    """The lowest recall@MIN_RECALL_K of all kinds of queries."""
    return min(each[f"@{MIN_RECALL_K}"] for each in recalls.values())


def _recall(hits_Q: list[list[Hit]], truth_QK: Features) -> float:
    counts = [
        sum(hit.score >= truth_K[-1] - _TOLERANCE for hit in hits)
        for hits, truth_K in zip(hits_Q, truth_QK, strict=True)
    ]
    return float(sum(counts) / truth_QK.size) if truth_QK.size else 1.0  # an empty gallery misses nothing


def _normalize(vectors: Features) -> Features:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
