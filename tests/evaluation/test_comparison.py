import statistics

import numpy as np
import pytest

from stbir.evaluation.comparison import COLUMNS, compare, difference, spread
from stbir.evaluation.robustness import TARGETS


def result(recipe: str, fold: str, seed: int, value: float | None) -> dict[str, object]:
    figures = {"acc@1": value, "acc@5": value, "acc@10": value}
    return {
        "recipe": recipe,
        "fold": fold,
        "seed": seed,
        "results": dict.fromkeys(("sketch", "text", "sketch+text"), figures),
    }


def test_spread_is_that_of_statistics() -> None:
    found = spread([1.0, 4.0, 2.5])
    assert (found.n, found.mean) == (3, pytest.approx(2.5))
    assert found.deviation == pytest.approx(statistics.stdev([1.0, 4.0, 2.5]))
    assert spread([3.0]).deviation is None


def test_differences_are_paired_by_fold_and_seed() -> None:
    of = {("a", 0): 5.0, ("b", 0): 6.0, ("only here", 0): 99.0}
    found = difference(of, {("b", 0): 5.0, ("a", 0): 2.0, ("only there", 0): -99.0})
    assert found is not None
    assert (found.n, found.mean) == (2, pytest.approx(2.0))
    # By hand: deviation sqrt(2), error 1, t of one degree of freedom 12.706.
    assert (found.low, found.high) == (pytest.approx(2 - 12.706), pytest.approx(2 + 12.706))
    assert not found.clear


def test_one_pair_has_no_interval_and_none_no_difference() -> None:
    one = difference({("a", 0): 5.0}, {("a", 0): 2.0})
    assert one is not None
    assert (one.mean, one.low, one.clear) == (3.0, None, False)
    assert difference({("a", 0): 5.0}, {("b", 0): 2.0}) is None


@pytest.mark.parametrize("pairs", [3, 5, 40])
def test_the_interval_holds_the_truth_as_often_as_it_says(pairs: int) -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(4000):
        of = {("a", seed): float(random.normal(1.0, 3.0)) for seed in range(pairs)}
        found = difference(of, dict.fromkeys(of, 0.0))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 1.0 <= found.high
    assert held / 4000 == pytest.approx(0.95, abs=0.015)


def test_the_first_recipe_is_what_the_others_are_held_against() -> None:
    trials = [result("full", fold, 0, value) for fold, value in (("a", 10.0), ("b", 20.0))]
    trials += [result("less", fold, 0, value) for fold, value in (("a", 8.0), ("b", 18.0))]
    found = compare(trials)
    assert found.recipes == ["full", "less"]
    assert found.spreads["full"]["text"]["acc@5"].mean == 15
    assert found.differences["full"] == {column: {} for column in COLUMNS}
    less = found.differences["less"]["sketch"]["acc@1"]
    assert (less.mean, less.low, less.high, less.clear) == (-2, -2, -2, True)
    assert found.as_dict()["against"] == "full"


def test_what_was_not_asked_is_left_out() -> None:
    found = compare([result("full", "a", 0, None), result("less", "a", 0, 8.0)])
    assert found.spreads["full"]["sketch"] == {}
    assert found.differences["less"]["sketch"] == {}


def poor(recipe: str, seed: int, area: float) -> dict[str, object]:
    areas = {target: {"sketch+text": {"acc@1": area + n}} for n, target in enumerate(TARGETS)}
    return {**result(recipe, "a", seed, 50.0), "robustness": {"area": areas}}


def test_areas_are_compared_where_trials_have_them() -> None:
    found = compare(
        [poor("full", 0, 30.0), poor("full", 1, 32.0), poor("less", 0, 20.0), poor("less", 1, 24.0)]
    )
    assert found.spreads["full"]["sketch distorted"]["area"].mean == 31
    assert found.spreads["full"]["both distorted"]["area"].mean == 33
    assert found.differences["less"]["text distorted"]["area"].mean == -9
    assert compare([result("full", "a", 0, 1.0)]).spreads["full"]["text distorted"] == {}
