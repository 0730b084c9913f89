"""Retrieval metrics for queries with one ground-truth photo each: rank, Acc@k, MRR, area under a curve."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stbir.evaluation.bootstrap import mean_intervals

Ranks = NDArray[np.int64]
Summary = dict[str, float | None]
ACCURACY_AT = (1, 5, 10)


def ranks(scores_QN: NDArray[np.floating], target_Q: NDArray[np.integer]) -> Ranks:
    """Rank of each query's ground-truth photo, (Q,), from scores (Q, N) and the photo's column (Q,).

    The rank is 1 + the number of other photos that score at least as much, so ties count against the
    query. NaN scores count against it too: a broken model ranks last.
    """
    target_Q1 = np.take_along_axis(scores_QN, target_Q[:, None], axis=1)
    return np.asarray((~(scores_QN < target_Q1)).sum(axis=1), dtype=np.int64)  # includes the target itself


def accuracy_curve(ranks_Q: Ranks, ks: Sequence[int]) -> list[float]:
    """Acc@k for each k: percentage of queries whose ground truth is among the first k. Equals Recall@k."""
    return [float(100 * np.mean(ranks_Q <= k)) for k in ks]


def summary(ranks_Q: Ranks, photo_Q: NDArray[np.integer]) -> Summary:
    """n, Acc@1, 5, 10 and mAP in percent, and the median rank; None if there are no queries.

    All but the median rank have a 95 % interval, `NAME_low` to `NAME_high`, over the photos (Q,) of the
    queries. With one ground-truth photo per query, mAP is the mean reciprocal rank (MRR).
    """
    names = [*(f"acc@{k}" for k in ACCURACY_AT), "map"]
    if not len(ranks_Q):
        bounds = [f"{name}_{end}" for name in names for end in ("low", "high")]
        return {"n": 0, **dict.fromkeys([*names, "median_rank", *bounds])}
    values_QM = 100 * np.stack([*(ranks_Q <= k for k in ACCURACY_AT), 1 / ranks_Q], axis=1)
    result: Summary = {"n": len(ranks_Q)}
    for name, mean, (low, high) in zip(
        names, values_QM.mean(0).tolist(), mean_intervals(values_QM, photo_Q), strict=True
    ):
        result |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    return result | {"median_rank": float(np.median(ranks_Q))}


def auc(y: Sequence[float], x: Sequence[float]) -> float:
    """Area under the curve y(x) by the trapezoid rule, divided by the width of the ascending x."""
    pieces = zip(x, x[1:], y, y[1:], strict=False)
    return sum((right - left) * (a + b) / 2 for left, right, a, b in pieces) / (x[-1] - x[0])
