import numpy as np
import pytest

from stbir.evaluation.bootstrap import RESAMPLES, mean_intervals


def test_interval_equals_an_explicit_bootstrap_over_photos() -> None:
    rng = np.random.default_rng(3)
    photo_Q = np.array([4, 4, 4, 7, 9, 9, 2])
    values_QM = rng.random((7, 2))
    expected = []
    draws = np.random.default_rng(0)
    for _ in range(RESAMPLES):
        drawn = [sorted({2, 4, 7, 9})[number] for number in draws.integers(4, size=4)]
        rows = [q for photo in drawn for q in range(7) if photo_Q[q] == photo]
        expected.append(values_QM[rows].mean(0))
    low, high = np.quantile(np.array(expected), (0.025, 0.975), axis=0)
    for column, interval in enumerate(mean_intervals(values_QM, photo_Q)):
        assert interval == pytest.approx((low[column], high[column]))


def test_interval_of_independent_queries_is_the_normal_one() -> None:
    values = (np.random.default_rng(0).random(400) < 0.5).astype(float)
    ((low, high),) = mean_intervals(values[:, None], np.arange(400))
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.1)


def test_queries_of_one_photo_widen_the_interval() -> None:
    values = np.repeat(np.arange(20) % 2, 5).astype(float)
    ((low, high),) = mean_intervals(values[:, None], np.repeat(np.arange(20), 5))
    ((own_low, own_high),) = mean_intervals(values[:, None], np.arange(100))
    assert high - low > 1.8 * (own_high - own_low)


def test_one_photo_has_an_interval_of_no_width() -> None:
    assert mean_intervals(np.array([[1.0], [0.0]]), np.array([5, 5])) == [(0.5, 0.5)]
