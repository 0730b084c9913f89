"""The probability that a hit is the photo a query means, from its score: one curve a kind of query.

A score alone says little: those of sketches, texts and both have ranges of their own, and the best hit of a
gallery that lacks the photo may score as high as a right one. The curve is measured on photos of no training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from stbir.embedding.queries import Queries, QueryKind, SplitFeatures, make_queries
from stbir.errors import InputError
from stbir.gallery.arrays import Features
from stbir.gallery.search import Hit
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest

MATCH = "match"  # the field of a checkpoint's manifest
UNKNOWN = (
    "the probability of a match is unknown; it is measured for sketch, text or both at weight 0.5, without"
    " marks and negatives: evaluate.py --store-probabilities"
)
MIN_QUERIES = 30  # of a kind; fewer say nothing of a probability
EQUAL_WEIGHT = 0.5
_QUERY_BATCH = 1024


@dataclass(frozen=True)
class MatchCurve:
    """Probability by score, linear between the points; both ascend. Constant beyond the ends.

    `num_queries` measured it, each with and without its photo in the gallery of `num_photos`.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]
    num_queries: int
    num_photos: int

    def probability(self, scores: Features) -> Features:
        """Scores of any shape → probabilities of that shape."""
        return np.interp(scores, self.scores, self.probabilities).astype(np.float32)


def fit_match_curves(features: SplitFeatures) -> dict[QueryKind, MatchCurve]:
    """The curves of a model, from photos that it was not trained on: isotonic regression of "the best hit is
    right" on its score (Zadrozny & Elkan, KDD 2002).

    Each query counts twice: in the gallery of all photos, and in that without its own, where each hit is
    wrong. So the prior that the gallery has the photo is a half. Kinds with fewer than MIN_QUERIES queries
    have no curve.
    """
    by_kind = make_queries(features, "per-sketch", EQUAL_WEIGHT)
    return {
        kind: _fit(queries, features.photo_ND)
        for kind, queries in by_kind.items()
        if len(queries.target_Q) >= MIN_QUERIES
    }


def _fit(queries: Queries, photo_ND: Features) -> MatchCurve:
    points = fit_probability(*best_hits(queries, photo_ND))
    return MatchCurve(*points, len(queries.target_Q), len(photo_ND))


def fit_probability(score_T: Features, is_right_T: Features) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Isotonic regression: the points (scores, probabilities) between which it is linear."""
    from sklearn.isotonic import IsotonicRegression  # takes seconds to import, and searches only read curves

    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score_T, is_right_T)
    return tuple(map(float, model.X_thresholds_)), tuple(map(float, model.y_thresholds_))


def best_hits(queries: Queries, photo_ND: Features) -> tuple[Features, Features]:
    """The scores (2 Q,) of the best hits with and without the queries' own photos, and whether they are right
    (2 Q,), 0 or 1."""
    with_own, without_own, is_right = [], [], []
    for start in range(0, len(queries.target_Q), _QUERY_BATCH):
        batch = slice(start, start + _QUERY_BATCH)
        scores_QN, target_Q = queries.vectors_QD[batch] @ photo_ND.T, queries.target_Q[batch]
        with_own.append(scores_QN.max(1))
        is_right.append(scores_QN.argmax(1) == target_Q)
        scores_QN[np.arange(len(target_Q)), target_Q] = -np.inf
        without_own.append(scores_QN.max(1))
    right_Q = np.concatenate(is_right).astype(np.float32)
    return np.concatenate([*with_own, *without_own]), np.concatenate([right_Q, np.zeros_like(right_Q)])


def choose_curve(
    curves: Mapping[str, MatchCurve], kind: str, sketch_weight: float, is_steered: bool
) -> MatchCurve | None:
    """The curve for a query; None for one that none was measured for: both parts were weighted equally."""
    if is_steered or (kind == "sketch+text" and sketch_weight != EQUAL_WEIGHT):
        return None
    return curves.get(kind)


def with_matches(hits: Sequence[Hit], curve: MatchCurve | None, min_match: float = 0.0) -> list[Hit]:
    """The hits with their probabilities, without those below `min_match`. Raises InputError if a curve is
    needed and missing."""
    if curve is None:
        if min_match > 0:
            raise InputError(f"min_match: {UNKNOWN}; leave it out")
        return list(hits)
    probabilities = curve.probability(np.asarray([hit.score for hit in hits], np.float32))
    found = (replace(hit, match=round(float(p), 4)) for hit, p in zip(hits, probabilities, strict=True))
    return [hit for hit in found if hit.match is not None and hit.match >= min_match]


def to_details(curves: Mapping[QueryKind, MatchCurve]) -> dict[str, Any]:
    """The curves as JSON, for the manifest of a checkpoint."""
    return {kind: asdict(curve) for kind, curve in curves.items()}


def from_details(details: Mapping[str, Any]) -> dict[str, MatchCurve]:
    """The inverse of `to_details`."""
    return {
        kind: MatchCurve(
            tuple(curve["scores"]), tuple(curve["probabilities"]), curve["num_queries"], curve["num_photos"]
        )
        for kind, curve in details.items()
    }


def store_match_curves(uri: str, curves: Mapping[QueryKind, MatchCurve]) -> None:
    """Store the curves in a CHECKPOINT. Its digest stays, and so do the galleries made with it."""
    checkpoint.add_details(uri, {MATCH: to_details(curves)})


def read_match_curves(uri: str) -> dict[str, MatchCurve]:
    """The curves of a CHECKPOINT; empty if none were measured."""
    return from_details(read_manifest(Folder(uri), "checkpoint").details.get(MATCH, {}))
