"""Reliability of the probability of a match: how often hits of a stated probability are right."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stbir.embedding.match_probability import MIN_QUERIES, best_hits, fit_probability
from stbir.embedding.queries import Queries, QueryKind, SplitFeatures, make_queries
from stbir.gallery.arrays import Features

NUM_BINS = 10


@dataclass(frozen=True)
class Reliability:
    """By bin of probability: mean probability and share of right hits, in percent, and number of hits.

    `error`: the expected calibration error in points, the mean distance of the two over all hits (Guo et al.,
    ICML 2017).
    """

    probability: list[float]
    right: list[float]
    n: list[int]
    error: float


def reliability(features: SplitFeatures) -> dict[QueryKind, Reliability]:
    """Of best hits, with and without the query's photo in the gallery, by kind of query.

    The probability of a query is of the curve that the queries of half of the other photos gave (two folds).
    Kinds with fewer than 2 MIN_QUERIES queries are left out.
    """
    by_kind = make_queries(features, "per-sketch", 0.5)
    return {
        kind: _reliability(queries, features.photo_ND)
        for kind, queries in by_kind.items()
        if len(queries.target_Q) >= 2 * MIN_QUERIES
    }


def _reliability(queries: Queries, photo_ND: Features) -> Reliability:
    score_T, is_right_T = best_hits(queries, photo_ND)
    fold_T = np.tile(queries.target_Q % 2, 2)  # by photo: its queries are alike
    probability_T = np.empty_like(score_T)
    for fold in (0, 1):
        others, own = fold_T != fold, fold_T == fold
        probability_T[own] = np.interp(score_T[own], *fit_probability(score_T[others], is_right_T[others]))
    return bin_by_probability(probability_T, is_right_T)


def bin_by_probability(probability_T: NDArray[np.floating], is_right_T: NDArray[np.floating]) -> Reliability:
    """Bins of about as many hits each; equal probabilities share one."""
    edges = np.unique(np.quantile(probability_T, np.linspace(0, 1, NUM_BINS + 1)[1:-1]))
    bin_T = np.searchsorted(edges, probability_T, side="right")
    bins = [bin_T == number for number in np.unique(bin_T)]
    probability = [100 * float(probability_T[chosen].mean()) for chosen in bins]
    right = [100 * float(is_right_T[chosen].mean()) for chosen in bins]
    n = [int(chosen.sum()) for chosen in bins]
    distances = np.abs(np.subtract(probability, right))
    return Reliability(probability, right, n, float(np.average(distances, weights=n)))


def as_dict(by_kind: Mapping[QueryKind, Reliability]) -> dict[str, Any]:
    """The field `reliability` of `report.json`."""
    return {kind: vars(each) for kind, each in by_kind.items()}
