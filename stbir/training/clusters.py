"""Classes where the data names none: clusters of image features stand in (module 2 of arXiv 2604.15735)."""

import numpy as np
from numpy.typing import NDArray

from stbir.errors import InputError

TRIES = 10  # k-means starts from as many seedings and keeps the best


def cluster(features_PD: NDArray[np.float32], count: int, seed: int) -> NDArray[np.int64]:
    """The cluster of each photo, (P,), of `count`; k-means on unit vectors, so by cosine.

    Raises InputError where there are fewer photos than clusters.
    """
    from sklearn.cluster import KMeans  # seconds to load, and few runs ask for it

    if len(features_PD) < count:
        raise InputError(f"clusters: {len(features_PD)} photos cannot make {count}; --set num_clusters=N")
    means = KMeans(count, n_init=TRIES, random_state=seed).fit(features_PD)
    return np.asarray(means.labels_, np.int64)
