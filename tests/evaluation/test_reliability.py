"""Reliability of the probability of a match, against a loop, and on split features of known noise."""

import itertools

import numpy as np
import pytest

from stbir.evaluation.reliability import NUM_BINS, bin_by_probability, reliability
from tests.embedding.test_match_probability import split


def test_bins_equal_a_loop() -> None:
    random = np.random.default_rng(0)
    probabilities = np.append(random.random(500), [0.0, 1.0])
    is_right = (random.random(502) < probabilities).astype(float)
    found = bin_by_probability(probabilities, is_right)
    ordered = sorted(probabilities)
    edges = [0.0, *(np.quantile(ordered, number / NUM_BINS) for number in range(1, NUM_BINS)), 2.0]
    expected, error = [], 0.0
    for low, high in itertools.pairwise(edges):
        chosen = [(p, right) for p, right in zip(probabilities, is_right, strict=True) if low <= p < high]
        mean_p, mean_right = (100 * sum(column) / len(chosen) for column in zip(*chosen, strict=True))
        expected.append((mean_p, mean_right, len(chosen)))
        error += len(chosen) / 502 * abs(mean_p - mean_right)
    actual = list(zip(found.probability, found.right, found.n, strict=True))
    np.testing.assert_allclose(actual, expected)
    assert found.error == pytest.approx(error)


def test_probabilities_of_unseen_photos_are_reliable() -> None:
    by_kind = reliability(split(400, 0.4))
    assert set(by_kind) == {"sketch", "text", "sketch+text"}
    for each in by_kind.values():
        assert each.error < 8
        assert sum(each.n) in (1600, 800)


def test_equal_probabilities_share_a_bin() -> None:
    found = bin_by_probability(np.array([0.1] * 90 + [0.8] * 10), np.array([0.0] * 90 + [1.0] * 10))
    assert found.n == [90, 10]
    assert found.right == [0, 100]


def test_too_few_queries_have_no_reliability() -> None:
    assert reliability(split(20, 0.4)) == {}
