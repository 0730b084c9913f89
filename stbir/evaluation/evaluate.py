"""Evaluation of sketch, text and sketch+text queries on the photos of one split (docs/method.md)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stbir.config.choices import PROTOCOLS, Protocol
from stbir.data.schema import Row
from stbir.embedding.queries import (
    QUERY_KINDS,
    Queries,
    QueryKind,
    SplitFeatures,
    embed,
    make_queries,
)
from stbir.errors import InputError
from stbir.evaluation import metrics
from stbir.gallery.arrays import Features, Indices
from stbir.model.retriever import Retriever

TOP_K = 5
_QUERY_BATCH = 1024
# Cosine similarities of float32 unit vectors are exact to about 1e-7. Rounded, smaller differences become
# ties, and the metrics do not depend on the order of floating-point additions.
_DECIMALS = 6


@dataclass(frozen=True)
class Ranking:
    """Rank of each query's target photo (Q,), and the first TOP_K photos (Q, <= TOP_K)."""

    target_Q: Indices
    sketch_Q: Indices
    ranks_Q: metrics.Ranks
    top_QK: Indices


@dataclass(frozen=True)
class Evaluation:
    """Rankings of the three kinds of query. `num_skipped` counts photos that lack a sketch or a caption."""

    protocol: Protocol
    photo_ids: list[str]
    categories: list[str]
    rankings: dict[QueryKind, Ranking]
    num_skipped: dict[QueryKind, int]

    @property
    def gallery_size(self) -> int:
        """Number of photos that each query is ranked against."""
        return len(self.photo_ids)

    @property
    def results(self) -> dict[str, metrics.Summary]:
        """Summary of the metrics for each kind of query."""
        return {kind: metrics.summary(ranking.ranks_Q) for kind, ranking in self.rankings.items()}

    @property
    def by_category(self) -> dict[str, dict[str, metrics.Summary]]:
        """Results for the queries of each category, ranked against all photos."""
        category_N = np.array(self.categories)
        return {
            category: {
                kind: metrics.summary(ranking.ranks_Q[category_N[ranking.target_Q] == category])
                for kind, ranking in self.rankings.items()
            }
            for category in sorted(set(self.categories))
        }

    def as_dict(self) -> dict[str, Any]:
        """The fields of `report.json` that an evaluation provides."""
        return {
            "protocol": self.protocol,
            "gallery_size": self.gallery_size,
            "results": self.results,
            "by_category": self.by_category,
            "not_asked": dict(self.num_skipped),
        }


def evaluate(
    retriever: Retriever, rows: Iterable[Row], protocol: Protocol = "per-sketch", sketch_weight: float = 0.5
) -> Evaluation:
    """Embed `rows`, and rank the photos for each query; `rows` are read once, in order.

    per-sketch: each sketch is a query, with its photo's caption. per-photo: the sketches of a photo are
    averaged into one query. A text query is one caption. A photo without sketch or caption stays in the
    gallery and is counted in `num_skipped`. The retriever's train and eval modes are restored.

    Raises InputError for an unknown protocol, no rows, or an image that does not decode.
    """
    _check(protocol)
    return evaluate_features(embed(retriever, rows), protocol, sketch_weight)


def evaluate_features(
    features: SplitFeatures, protocol: Protocol = "per-sketch", sketch_weight: float = 0.5
) -> Evaluation:
    """Evaluate embedded rows. Raises InputError for an unknown protocol."""
    _check(protocol)
    by_kind = make_queries(features, protocol, sketch_weight)
    return Evaluation(
        protocol,
        features.photo_ids,
        features.categories,
        {kind: rank(by_kind[kind], features.photo_ND) for kind in QUERY_KINDS},
        {kind: len(features.photo_ids) - len(set(by_kind[kind].target_Q.tolist())) for kind in QUERY_KINDS},
    )


def _check(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol: {protocol!r} is not one of {', '.join(PROTOCOLS)}")


def rank(queries: Queries, photo_ND: Features) -> Ranking:
    """Exact search for all queries, in batches, so that the scores (Q, N) never fill memory."""
    ranks_Q = np.empty(len(queries.target_Q), np.int64)
    top_QK = np.empty((len(queries.target_Q), min(TOP_K, len(photo_ND))), np.int64)
    for start in range(0, len(ranks_Q), _QUERY_BATCH):
        batch = slice(start, start + _QUERY_BATCH)
        scores_QN = np.round(queries.vectors_QD[batch] @ photo_ND.T, _DECIMALS)
        ranks_Q[batch] = metrics.ranks(scores_QN, queries.target_Q[batch])
        top_QK[batch] = np.argsort(-scores_QN, axis=1, kind="stable")[:, :TOP_K]
    return Ranking(queries.target_Q, queries.sketch_Q, ranks_Q, top_QK)
