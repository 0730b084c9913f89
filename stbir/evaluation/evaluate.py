"""Sketch, text and both as queries, side by side, over the photos of one split (docs/method.md)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stbir.config.choices import PROTOCOLS, Protocol
from stbir.data.schema import Row
from stbir.embedding.queries import (
    KINDS,
    Embedded,
    Queries,
    QueryKind,
    embed,
    queries,
)
from stbir.errors import InputError
from stbir.evaluation import metrics
from stbir.gallery.arrays import Features, Index
from stbir.model.retriever import Retriever

TOP = 5
_QUERIES_AT_ONCE = 1024
# Cosines of float32 unit vectors are good to about 1e-7. Rounded, photos that differ by less are ties,
# and the figures do not hang on the order in which a machine adds.
_DECIMALS = 6


@dataclass(frozen=True)
class Ranking:
    """What came of it: the rank of the right photo (Q,), and the first TOP photos (Q, <= TOP)."""

    right_Q: Index
    sketch_Q: Index
    ranks_Q: metrics.Ranks
    top_QK: Index


@dataclass(frozen=True)
class Evaluation:
    """Ranks of every query of the three kinds. `not_asked` counts photos that lack what a query needs."""

    protocol: Protocol
    photo_ids: list[str]
    categories: list[str]
    rankings: dict[QueryKind, Ranking]
    not_asked: dict[QueryKind, int]

    @property
    def gallery_size(self) -> int:
        """How many photos each query is searched in."""
        return len(self.photo_ids)

    @property
    def results(self) -> dict[str, metrics.Summary]:
        """The summary of `metrics` for each kind of query."""
        return {kind: metrics.summary(ranking.ranks_Q) for kind, ranking in self.rankings.items()}

    @property
    def by_category(self) -> dict[str, dict[str, metrics.Summary]]:
        """The same for the queries of each category, still searched in the whole gallery."""
        of_photo = np.array(self.categories)
        return {
            category: {
                kind: metrics.summary(ranking.ranks_Q[of_photo[ranking.right_Q] == category])
                for kind, ranking in self.rankings.items()
            }
            for category in sorted(set(self.categories))
        }

    def as_dict(self) -> dict[str, Any]:
        """The part of `report.json` that an evaluation knows."""
        return {
            "protocol": self.protocol,
            "gallery_size": self.gallery_size,
            "results": self.results,
            "by_category": self.by_category,
            "not_asked": dict(self.not_asked),
        }


def evaluate(
    retriever: Retriever, rows: Iterable[Row], protocol: Protocol = "per-sketch", sketch_weight: float = 0.5
) -> Evaluation:
    """Search each query of `rows` among the photos of `rows`; these are read once, in their order.

    per-sketch: each sketch, with its photo's caption, is a query. per-photo: all sketches of a photo are
    averaged into one. Captions alone are asked once a photo. A photo that lacks a sketch or a caption
    stays in the gallery; what it cannot ask is counted. Raises InputError for an unknown protocol, no
    rows, and what is no picture. The retriever comes back in the mode it was in.
    """
    _check(protocol)
    return evaluate_embedded(embed(retriever, rows), protocol, sketch_weight)


def evaluate_embedded(
    embedded: Embedded, protocol: Protocol = "per-sketch", sketch_weight: float = 0.5
) -> Evaluation:
    """`evaluate` for rows that are embedded already. Raises InputError for an unknown protocol."""
    _check(protocol)
    asked = queries(embedded, protocol, sketch_weight)
    return Evaluation(
        protocol,
        embedded.photo_ids,
        embedded.categories,
        {kind: rank(asked[kind], embedded.photo_ND) for kind in KINDS},
        {kind: len(embedded.photo_ids) - len(set(asked[kind].right_Q.tolist())) for kind in KINDS},
    )


def _check(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol: {protocol!r} is not one of {', '.join(PROTOCOLS)}")


def rank(asked: Queries, photo_ND: Features) -> Ranking:
    """Search all queries exactly, some at a time, so that no (Q, N) table of scores is held."""
    ranks_Q = np.empty(len(asked.right_Q), np.int64)
    top_QK = np.empty((len(asked.right_Q), min(TOP, len(photo_ND))), np.int64)
    for start in range(0, len(ranks_Q), _QUERIES_AT_ONCE):
        some = slice(start, start + _QUERIES_AT_ONCE)
        scores_QN = np.round(asked.vectors_QD[some] @ photo_ND.T, _DECIMALS)
        ranks_Q[some] = metrics.ranks(scores_QN, asked.right_Q[some])
        top_QK[some] = np.argsort(-scores_QN, axis=1, kind="stable")[:, :TOP]
    return Ranking(asked.right_Q, asked.sketch_Q, ranks_Q, top_QK)
