import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbir.evaluation import metrics

# Few distinct scores make ties common.
SCORES = st.integers(1, 6).flatmap(
    lambda n: st.lists(
        st.tuples(st.lists(st.integers(0, 3), min_size=n, max_size=n), st.integers(0, n - 1)), min_size=1
    )
)


def slow_rank(scores: list[int], target: int) -> int:
    rank = 1
    for photo, score in enumerate(scores):
        if photo != target and score >= scores[target]:
            rank += 1
    return rank


@given(SCORES)
def test_rank_counts_photos_with_at_least_the_same_score(queries):
    ranks = metrics.ranks(np.array([s for s, _ in queries], float), np.array([r for _, r in queries]))
    assert ranks.tolist() == [slow_rank(scores, target) for scores, target in queries]


def test_all_equal_scores_rank_last():
    assert metrics.ranks(np.ones((2, 7)), np.array([0, 6])).tolist() == [7, 7]


@pytest.mark.parametrize("broken", [[np.nan, 0.5, 0.5], [0.9, np.nan, 0.1], [np.nan, np.nan, np.nan]])
def test_nan_scores_never_improve_a_rank(broken):
    clean = np.nan_to_num(np.array([broken]), nan=1.0)
    assert metrics.ranks(np.array([broken]), np.array([0])) >= metrics.ranks(clean, np.array([0]))


@given(st.lists(st.integers(1, 30), min_size=1))
def test_summary_against_loops(ranks):
    n = len(ranks)
    summary = metrics.summary(np.array(ranks), np.arange(n))
    assert {name: value for name, value in summary.items() if not name.endswith(("_low", "_high"))} == {
        "n": n,
        "acc@1": pytest.approx(100 * sum(rank <= 1 for rank in ranks) / n),
        "acc@5": pytest.approx(100 * sum(rank <= 5 for rank in ranks) / n),
        "acc@10": pytest.approx(100 * sum(rank <= 10 for rank in ranks) / n),
        "map": pytest.approx(100 * sum(1 / rank for rank in ranks) / n),
        "median_rank": statistics.median(ranks),
    }


def test_summary_without_queries_is_empty():
    summary = metrics.summary(np.array([], int), np.array([], int))
    assert summary.pop("n") == 0
    assert set(summary.values()) == {None}


@given(st.lists(st.integers(1, 30), min_size=1))
def test_accuracy_curve_is_monotonic_and_ends_at_100(ranks):
    curve = metrics.accuracy_curve(np.array(ranks), range(1, 31))
    assert curve == sorted(curve)
    assert curve[-1] == 100


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 1)), min_size=2, max_size=6))
def test_auc_equals_the_mean_of_the_interpolated_curve(points):
    y, x = [v for v, _ in points], list(np.cumsum([step for _, step in points]))
    fine = np.linspace(x[0], x[-1], 20_001)
    assert metrics.auc(y, x) == pytest.approx(np.interp(fine, x, y).mean(), abs=0.05)
