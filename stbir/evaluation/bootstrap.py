"""Confidence intervals of mean values over queries, by a bootstrap over photos (Efron, 1979)."""

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 1000

Interval = tuple[float, float]


def mean_intervals(values_QM: NDArray[np.floating], photo_Q: NDArray[np.integer]) -> list[Interval]:
    """The percentile interval of the mean of each column of (Q, M), with Q > 0; the same at each call.

    Photos are resampled rather than queries, since the sketches of one photo are not independent. The
    gallery stays, so the intervals say nothing about other galleries.
    """
    _, index_Q = np.unique(photo_Q, return_inverse=True)
    count_P = np.bincount(index_Q)
    sum_PM = np.zeros((len(count_P), values_QM.shape[1]))
    np.add.at(sum_PM, index_Q, values_QM)
    rng, means_RM = np.random.default_rng(0), np.empty((RESAMPLES, values_QM.shape[1]))
    for mean_M in means_RM:
        weight_P = np.bincount(rng.integers(len(count_P), size=len(count_P)), minlength=len(count_P))
        mean_M[:] = weight_P @ sum_PM / (weight_P @ count_P)
    tail = (1 - CONFIDENCE) / 2
    low_M, high_M = np.quantile(means_RM, (tail, 1 - tail), axis=0)
    return list(zip(low_M.tolist(), high_M.tolist(), strict=True))
