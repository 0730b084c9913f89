"""Comparison of recipes over several trials: mean, deviation, paired differences with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stbir.embedding.queries import QUERY_KINDS
from stbir.evaluation.robustness import CORRUPTED_INPUTS

# Column → measures: the kinds of query, and sketch+text with corrupted inputs. Keys of `ablation.json`.
COLUMNS: dict[str, tuple[str, ...]] = {
    **{kind: ("acc@1", "acc@5", "acc@10") for kind in QUERY_KINDS},
    **{f"{target} distorted": ("area",) for target in CORRUPTED_INPUTS},
}
CONFIDENCE = 0.95
TrialKey = tuple[str, int]  # fold, seed
Values = Mapping[TrialKey, float]  # in percent
# 97.5 % quantiles of Student's t for 1, 2, … degrees of freedom, and of the normal distribution.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL = 1.960


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) over n trials; the deviation of one trial is None."""

    n: int
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Difference:
    """Mean of n paired differences, with its confidence interval if there are at least two pairs."""

    n: int
    mean: float
    low: float | None
    high: float | None

    @property
    def significant(self) -> bool:
        """Whether the confidence interval excludes zero."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Comparison:
    """Statistics by recipe, column and measure. Differences are relative to the first recipe."""

    recipes: list[str]
    spreads: dict[str, dict[str, dict[str, Spread]]]
    differences: dict[str, dict[str, dict[str, Difference]]]

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON."""
        return {"confidence": CONFIDENCE, "against": self.recipes[0], **asdict(self)}


def compare(results: Sequence[Mapping[str, Any]]) -> Comparison:
    """Compare trials (`recipe`, `fold`, `seed`, and the fields of report.json) with the first recipe.

    Trials with `robustness` are also compared by the area under the curve of Acc@1.
    """
    recipes = list(dict.fromkeys(result["recipe"] for result in results))
    spreads: dict[str, dict[str, dict[str, Spread]]] = {}
    differences: dict[str, dict[str, dict[str, Difference]]] = {}
    for recipe in recipes:
        spreads[recipe] = {column: {} for column in COLUMNS}
        differences[recipe] = {column: {} for column in COLUMNS}
        for column, measures in COLUMNS.items():
            for measure in measures:
                values = _values(results, recipe, column, measure)
                baseline = _values(results, recipes[0], column, measure)
                if values:
                    spreads[recipe][column][measure] = spread(list(values.values()))
                if recipe != recipes[0] and (paired := difference(values, baseline)) is not None:
                    differences[recipe][column][measure] = paired
    return Comparison(recipes, spreads, differences)


def _values(
    results: Sequence[Mapping[str, Any]], recipe: str, column: str, measure: str
) -> dict[TrialKey, float]:
    return {
        (result["fold"], result["seed"]): value
        for result in results
        if result["recipe"] == recipe and (value := value_of(result, column, measure)) is not None
    }


def value_of(result: Mapping[str, Any], column: str, measure: str) -> float | None:
    """Value of a measure in a trial; None if it was not evaluated."""
    if column in QUERY_KINDS:
        return result["results"][column][measure]  # type: ignore[no-any-return]
    if "robustness" not in result:
        return None
    by_kind = result["robustness"]["area"][column.removesuffix(" distorted")]
    return by_kind["sketch+text"]["acc@1"]  # type: ignore[no-any-return]


def spread(values: Sequence[float]) -> Spread:
    """Statistics of at least one value."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(len(values), float(np.mean(values)), deviation)


def difference(values: Values, baseline: Values) -> Difference | None:
    """Difference over the trials that both have; None if they share none."""
    shared = sorted(set(values) & set(baseline))
    if not shared:
        return None
    pairs = np.array([values[trial] - baseline[trial] for trial in shared])
    low, high = _interval(pairs) if len(pairs) > 1 else (None, None)
    return Difference(len(pairs), float(pairs.mean()), low, high)


def _interval(pairs: NDArray[np.float64]) -> tuple[float, float]:
    """Confidence interval of the mean by Student's t, for at least two pairs."""
    error = pairs.std(ddof=1) / np.sqrt(len(pairs))
    half = error * (_T[len(pairs) - 2] if len(pairs) - 2 < len(_T) else _NORMAL)
    return float(pairs.mean() - half), float(pairs.mean() + half)
