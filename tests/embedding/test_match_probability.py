"""Curves of the probability of a match, against loops over queries."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from stbir.embedding.match_probability import (
    MIN_QUERIES,
    MatchCurve,
    best_hits,
    fit_match_curves,
    from_details,
    to_details,
)
from stbir.embedding.queries import Queries, SplitFeatures
from stbir.gallery.arrays import Features

DIM = 8


def unit(vectors: Features) -> Features:
    normalized: Features = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return normalized


def split(num_photos: int, noise: float, seed: int = 0) -> SplitFeatures:
    """Photos with two sketches and a caption each, which differ from the photo by `noise`."""
    random = np.random.default_rng(seed)
    photo_ND = unit(random.normal(size=(num_photos, DIM)))
    sketch_photo_S = np.repeat(np.arange(num_photos), 2)

    def near(photos: Features) -> Features:
        return unit(photos + noise * random.normal(size=photos.shape))

    ids = [str(n) for n in range(num_photos)]
    sketch_SD, text_TD = near(photo_ND[sketch_photo_S]), near(photo_ND)
    return SplitFeatures(ids, ids, photo_ND, sketch_SD, sketch_photo_S, text_TD, np.arange(num_photos))


def test_best_hits_equal_a_loop_over_queries() -> None:
    features = split(30, 0.5)
    queries = Queries(features.sketch_SD, features.sketch_photo_S, features.sketch_photo_S)
    scores, rights = [], []
    for own_is_there in (True, False):
        for vector, target in zip(features.sketch_SD, features.sketch_photo_S, strict=True):
            hits = [(float(vector @ photo), n) for n, photo in enumerate(features.photo_ND)]
            score, best = max(hit for hit in hits if own_is_there or hit[1] != target)
            scores.append(score)
            rights.append(float(best == target))
    found, is_right = best_hits(queries, features.photo_ND)
    np.testing.assert_allclose(found, scores, rtol=1e-5)
    assert is_right.tolist() == rights


@pytest.mark.parametrize("noise", [0.1, 0.3, 0.6])
def test_probabilities_are_those_of_unseen_queries(noise: float) -> None:
    curves = fit_match_curves(split(400, noise))
    unseen = split(400, noise, seed=1)
    queries = Queries(unseen.sketch_SD, unseen.sketch_photo_S, unseen.sketch_photo_S)
    scores, is_right = best_hits(queries, unseen.photo_ND)
    probabilities = curves["sketch"].probability(scores)
    for low, high in ((0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.01)):
        chosen = (probabilities >= low) & (probabilities < high)
        if chosen.sum() >= 50:
            assert is_right[chosen].mean() == pytest.approx(probabilities[chosen].mean(), abs=0.12)
    assert probabilities.mean() == pytest.approx(is_right.mean(), abs=0.05)


def test_a_higher_score_is_never_less_probable() -> None:
    for curve in fit_match_curves(split(100, 0.4)).values():
        values = curve.probability(np.linspace(-2, 2, 1000, dtype=np.float32))
        assert (np.diff(values) >= 0).all()
        assert values.min() >= 0
        assert values.max() <= 1


def test_kinds_with_few_queries_have_no_curve() -> None:
    assert set(fit_match_curves(split(MIN_QUERIES // 2, 0.3))) == {"sketch", "sketch+text"}
    assert fit_match_curves(split(2, 0.3)) == {}


def test_curves_survive_the_manifest() -> None:
    curves = {"text": MatchCurve((0.25, 0.5), (0.0, 1.0), 40, 50)}
    stored = json.loads(json.dumps(to_details(curves)))  # type: ignore[arg-type]
    assert from_details(stored) == curves
    assert stored["text"] == json.loads(json.dumps(asdict(curves["text"])))
