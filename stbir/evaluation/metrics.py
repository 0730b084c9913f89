"""How well a query finds its photo: the rank of the right one, and what is said of many ranks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ranks = NDArray[np.int64]
Summary = dict[str, float | None]
ACCURACY_AT = (1, 5, 10)


def ranks(scores_QN: NDArray[np.floating], right_Q: NDArray[np.integer]) -> Ranks:
    """The rank of each query's right photo, (Q,), from scores (Q, N) and its column (Q,).

    Ties count against us: 1 + the number of other photos that score at least as much. So does whatever
    is not a number: a broken model comes last.
    """
    right_Q1 = np.take_along_axis(scores_QN, right_Q[:, None], axis=1)
    return np.asarray((~(scores_QN < right_Q1)).sum(axis=1), dtype=np.int64)  # the right one counts for 1


def accuracy(ranks_Q: Ranks, k: int) -> float:
    """Acc@k: the percentage of queries whose right photo is among the first k."""
    return float(100 * np.mean(ranks_Q <= k))


def curve(ranks_Q: Ranks, ks: Sequence[int]) -> list[float]:
    """Acc@k in percent at each k."""
    return [accuracy(ranks_Q, k) for k in ks]


def summary(ranks_Q: Ranks) -> Summary:
    """n, Acc@1, 5, 10 and mAP in percent, and the median rank; None where no query was asked.

    With one right photo a query, mAP is the mean reciprocal rank.
    """
    names = [f"acc@{k}" for k in ACCURACY_AT]
    if not len(ranks_Q):
        return {"n": 0, **dict.fromkeys([*names, "map", "median_rank"])}
    return {
        "n": len(ranks_Q),
        **dict(zip(names, curve(ranks_Q, ACCURACY_AT), strict=True)),
        "map": float(100 * np.mean(1 / ranks_Q)),
        "median_rank": float(np.median(ranks_Q)),
    }


def area(values: Sequence[float], at: Sequence[float]) -> float:
    """The mean height of the line through `values` at the ascending places `at` (the trapezoid rule)."""
    pieces = zip(at, at[1:], values, values[1:], strict=False)
    return sum((right - left) * (a + b) / 2 for left, right, a, b in pieces) / (at[-1] - at[0])
