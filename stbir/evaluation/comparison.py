"""Many trials side by side: the spread of each recipe, and paired differences with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stbir.embedding.queries import KINDS
from stbir.evaluation.robustness import TARGETS

# What trials are compared by: the kinds of query, and sketch+text with either or both distorted.
COLUMNS: dict[str, tuple[str, ...]] = {
    **{kind: ("acc@1", "acc@5", "acc@10") for kind in KINDS},
    **{f"{target} distorted": ("area",) for target in TARGETS},
}
CONFIDENCE = 0.95
Pairing = tuple[str, int]  # fold and seed: what trials of two recipes share
Figures = Mapping[Pairing, float]  # in percent
# The 97.5 % quantile of Student's t for 1, 2, … degrees of freedom, and of the normal it tends to.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL = 1.960


@dataclass(frozen=True)
class Spread:
    """Mean and deviation (of n - 1) over n trials; no deviation where there is one only."""

    n: int
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Difference:
    """Mean of n paired differences; from two pairs on, the interval that holds the true one (CONFIDENCE)."""

    n: int
    mean: float
    low: float | None
    high: float | None

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Comparison:
    """By recipe, column and measure. Differences are against the first recipe, which has none."""

    recipes: list[str]
    spreads: dict[str, dict[str, dict[str, Spread]]]
    differences: dict[str, dict[str, dict[str, Difference]]]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"confidence": CONFIDENCE, "against": self.recipes[0], **asdict(self)}


def compare(results: Sequence[Mapping[str, Any]]) -> Comparison:
    """Results of trials (`recipe`, `fold`, `seed`; `results` as in report.json), against the first recipe.

    Where trials have `robustness` too, also by the area under the curve of Acc@1.
    """
    recipes = list(dict.fromkeys(result["recipe"] for result in results))
    spreads: dict[str, dict[str, dict[str, Spread]]] = {}
    differences: dict[str, dict[str, dict[str, Difference]]] = {}
    for recipe in recipes:
        spreads[recipe] = {column: {} for column in COLUMNS}
        differences[recipe] = {column: {} for column in COLUMNS}
        for column, measures in COLUMNS.items():
            for measure in measures:
                figures = _figures(results, recipe, column, measure)
                against = _figures(results, recipes[0], column, measure)
                if figures:
                    spreads[recipe][column][measure] = spread(list(figures.values()))
                if recipe != recipes[0] and (found := difference(figures, against)) is not None:
                    differences[recipe][column][measure] = found
    return Comparison(recipes, spreads, differences)


def _figures(
    results: Sequence[Mapping[str, Any]], recipe: str, column: str, measure: str
) -> dict[Pairing, float]:
    return {
        (result["fold"], result["seed"]): value
        for result in results
        if result["recipe"] == recipe and (value := figure(result, column, measure)) is not None
    }


def figure(result: Mapping[str, Any], column: str, measure: str) -> float | None:
    """One figure of a trial; None where that was not asked."""
    if column in KINDS:
        return result["results"][column][measure]  # type: ignore[no-any-return]
    if "robustness" not in result:
        return None
    areas = result["robustness"]["area"][column.removesuffix(" distorted")]
    return areas["sketch+text"]["acc@1"]  # type: ignore[no-any-return]


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(len(values), float(np.mean(values)), deviation)


def difference(of: Figures, against: Figures) -> Difference | None:
    """Over the trials that both have; None where they share none."""
    shared = sorted(set(of) & set(against))
    if not shared:
        return None
    pairs = np.array([of[trial] - against[trial] for trial in shared])
    low, high = _interval(pairs) if len(pairs) > 1 else (None, None)
    return Difference(len(pairs), float(pairs.mean()), low, high)


def _interval(pairs: NDArray[np.float64]) -> tuple[float, float]:
    """Student's t over at least two pairs."""
    error = pairs.std(ddof=1) / np.sqrt(len(pairs))
    half = error * (_T[len(pairs) - 2] if len(pairs) - 2 < len(_T) else _NORMAL)
    return float(pairs.mean() - half), float(pairs.mean() + half)
