"""Evaluation of sketch, text and sketch+text queries on the photos of one split (docs/method.md)."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from stbir.config.choices import PROTOCOLS, Protocol
from stbir.data.schema import Row
from stbir.embedding.queries import (
    QUERY_KINDS,
    QueryKind,
    SplitFeatures,
    embed,
    make_queries,
)
from stbir.errors import InputError
from stbir.evaluation import metrics
from stbir.evaluation.modality_shares import ModalityShare, modality_shares
from stbir.evaluation.ranking import Ranking, rank
from stbir.model.retriever import Retriever


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

    @cached_property
    def results(self) -> dict[str, metrics.Summary]:
        """Summary of the metrics for each kind of query."""
        return {
            kind: metrics.summary(ranking.ranks_Q, ranking.target_Q)
            for kind, ranking in self.rankings.items()
        }

    @cached_property
    def by_category(self) -> dict[str, dict[str, metrics.Summary]]:
        """Results for the queries of each category, ranked against all photos."""
        category_N = np.array(self.categories)
        return {
            category: {
                kind: metrics.summary(ranking.ranks_Q[chosen_Q], ranking.target_Q[chosen_Q])
                for kind, ranking in self.rankings.items()
                for chosen_Q in [category_N[ranking.target_Q] == category]
            }
            for category in sorted(set(self.categories))
        }

    @cached_property
    def modality_shares(self) -> list[ModalityShare]:
        """The sketch+text queries by the modalities that find the photo alone."""
        return modality_shares(self.rankings)

    def as_dict(self) -> dict[str, Any]:
        """The fields of `report.json` that an evaluation provides."""
        return {
            "protocol": self.protocol,
            "gallery_size": self.gallery_size,
            "results": self.results,
            "by_category": self.by_category,
            "modality_shares": [asdict(share) for share in self.modality_shares],
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
