"""Pseudo-classes from clusters of image features (module 2 of arXiv 2604.15735)."""

import numpy as np
from numpy.typing import NDArray

from stbir.errors import InputError

NUM_INITS = 10  # k-means runs with different seedings; the best one counts


def cluster(features_PD: NDArray[np.float32], num_clusters: int, seed: int) -> NDArray[np.int64]:
    """The cluster of each photo, (P,): k-means on unit vectors, so by cosine.

    Raises InputError if there are fewer photos than clusters.
    """
    from sklearn.cluster import KMeans  # takes seconds to import, and few recipes use it

    if len(features_PD) < num_clusters:
        raise InputError(
            f"num_clusters: {num_clusters} is more than the {len(features_PD)} photos; --set num_clusters=N"
        )
    kmeans = KMeans(num_clusters, n_init=NUM_INITS, random_state=seed).fit(features_PD)
    return np.asarray(kmeans.labels_, np.int64)
