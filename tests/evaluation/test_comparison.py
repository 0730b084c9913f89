import statistics

import numpy as np
import pytest

from stbir.evaluation.comparison import COLUMNS, compare, difference, spread
from stbir.evaluation.robustness import CORRUPTED_INPUTS


def result(recipe: str, fold: str, seed: int, value: float | None) -> dict[str, object]:
    values = {"acc@1": value, "acc@5": value, "acc@10": value}
    return {
        "recipe": recipe,
        "fold": fold,
        "seed": seed,
        "results": dict.fromkeys(("sketch", "text", "sketch+text"), values),
    }


def test_spread_equals_the_statistics_module() -> None:
    result = spread([1.0, 4.0, 2.5])
    assert (result.n, result.mean) == (3, pytest.approx(2.5))
    assert result.deviation == pytest.approx(statistics.stdev([1.0, 4.0, 2.5]))
    assert spread([3.0]).deviation is None


def test_differences_are_paired_by_fold_and_seed() -> None:
    values = {("a", 0): 5.0, ("b", 0): 6.0, ("unpaired", 0): 99.0}
    paired = difference(values, {("b", 0): 5.0, ("a", 0): 2.0, ("other", 0): -99.0})
    assert paired is not None
    assert (paired.n, paired.mean) == (2, pytest.approx(2.0))
    # Standard deviation sqrt(2), standard error 1, t quantile for one degree of freedom 12.706.
    assert (paired.low, paired.high) == (pytest.approx(2 - 12.706), pytest.approx(2 + 12.706))
    assert not paired.significant


def test_one_pair_has_no_interval_and_no_pair_has_no_difference() -> None:
    single = difference({("a", 0): 5.0}, {("a", 0): 2.0})
    assert single is not None
    assert (single.mean, single.low, single.significant) == (3.0, None, False)
    assert difference({("a", 0): 5.0}, {("b", 0): 2.0}) is None


@pytest.mark.parametrize("pairs", [3, 5, 40])
def test_interval_has_its_nominal_coverage(pairs: int) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(4000):
        values = {("a", seed): float(rng.normal(1.0, 3.0)) for seed in range(pairs)}
        paired = difference(values, dict.fromkeys(values, 0.0))
        assert paired is not None
        assert paired.low is not None
        assert paired.high is not None
        covered += paired.low <= 1.0 <= paired.high
    assert covered / 4000 == pytest.approx(0.95, abs=0.015)


def test_first_recipe_is_the_baseline() -> None:
    trials = [result("base", fold, 0, value) for fold, value in (("a", 10.0), ("b", 20.0))]
    trials += [result("ablated", fold, 0, value) for fold, value in (("a", 8.0), ("b", 18.0))]
    comparison = compare(trials)
    assert comparison.recipes == ["base", "ablated"]
    assert comparison.spreads["base"]["text"]["acc@5"].mean == 15
    assert comparison.differences["base"] == {column: {} for column in COLUMNS}
    ablated = comparison.differences["ablated"]["sketch"]["acc@1"]
    assert (ablated.mean, ablated.low, ablated.high, ablated.significant) == (-2, -2, -2, True)
    assert comparison.as_dict()["against"] == "base"


def test_missing_values_are_omitted() -> None:
    comparison = compare([result("base", "a", 0, None), result("ablated", "a", 0, 8.0)])
    assert comparison.spreads["base"]["sketch"] == {}
    assert comparison.differences["ablated"]["sketch"] == {}


def result_with_auc(recipe: str, seed: int, auc: float) -> dict[str, object]:
    aucs = {corrupted: {"sketch+text": {"acc@1": auc + n}} for n, corrupted in enumerate(CORRUPTED_INPUTS)}
    return {**result(recipe, "a", seed, 50.0), "robustness": {"area": aucs}}


def test_auc_is_compared_if_trials_have_robustness() -> None:
    comparison = compare(
        [
            result_with_auc("base", 0, 30.0),
            result_with_auc("base", 1, 32.0),
            result_with_auc("ablated", 0, 20.0),
            result_with_auc("ablated", 1, 24.0),
        ]
    )
    assert comparison.spreads["base"]["sketch distorted"]["area"].mean == 31
    assert comparison.spreads["base"]["both distorted"]["area"].mean == 33
    assert comparison.differences["ablated"]["text distorted"]["area"].mean == -9
    assert compare([result("base", "a", 0, 1.0)]).spreads["base"]["text distorted"] == {}
