"""Synthetic vectors with the structure of photo embeddings: categories, clusters of very different size in
each, and anisotropic noise around the clusters."""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
_CHUNK_ROWS = 50_000
_CATEGORIES = 200
_PHOTOS_PER_CLUSTER = 100  # on average; the largest clusters have thousands


class ClusteredVectors:
    """Centers of categories and clusters, fixed by `seed`."""

    def __init__(self, rows: int, dim: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        num_clusters = max(_CATEGORIES, rows // _PHOTOS_PER_CLUSTER)
        category_CD = rng.normal(size=(_CATEGORIES, dim))
        self.category_of = rng.integers(_CATEGORIES, size=num_clusters)
        common_D = rng.normal(size=dim)  # common to all photos, so that cosines are not centered at 0
        center_KD = common_D + category_CD[self.category_of] + 0.8 * rng.normal(size=(num_clusters, dim))
        self.center_KD = np.asarray(center_KD, np.float32)
        sizes = rng.pareto(1.5, size=num_clusters) + 0.2
        self._share = sizes / sizes.sum()
        scale_D = np.arange(1, dim + 1) ** -0.35  # a decaying spectrum, like that of features
        self._scale_D = np.asarray(scale_D / np.sqrt((scale_D**2).mean()), np.float32)

    def photos(self, count: int, seed: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Unit vectors (N, D) and their categories."""
        rng = np.random.default_rng(seed)
        cluster_N = rng.choice(len(self._share), size=count, p=self._share)
        photo_ND = np.empty((count, self.center_KD.shape[1]), np.float32)
        for start in range(0, count, _CHUNK_ROWS):
            part = cluster_N[start : start + _CHUNK_ROWS]
            photo_ND[start : start + _CHUNK_ROWS] = self._sample(self.center_KD[part], rng)
        return photo_ND, np.asarray(self.category_of[cluster_N])

    def _sample(self, center_BD: Vectors, rng: np.random.Generator) -> Vectors:
        spread_B1 = 0.7 * rng.gamma(4, 0.25, size=(len(center_BD), 1)).astype(np.float32)
        noise_BD = self._scale_D * rng.standard_normal(center_BD.shape, np.float32)
        return normalize(center_BD + spread_B1 * noise_BD)


def normalize(vectors: Vectors) -> Vectors:
    """The vectors scaled to length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def noisy_copies(photo_QD: Vectors, cosine: float, seed: int) -> Vectors:
    """Queries at about that cosine from the photos, like sketches: far from all other photos too."""
    noise_QD = normalize(np.random.default_rng(seed).standard_normal(photo_QD.shape, np.float32))
    return normalize(cosine * photo_QD + (1 - cosine**2) ** 0.5 * noise_QD)
