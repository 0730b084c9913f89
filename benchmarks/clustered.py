"""Vectors that lie as those of photos do: categories, kinds within them of very different size, and photos
spread around each in some directions much more than in others."""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
_AT_ONCE = 50_000
_CATEGORIES = 200
_PHOTOS_A_KIND = 100  # on average; the largest kinds have thousands


class World:
    """Where the categories and kinds lie; the same `seed` gives the same."""

    def __init__(self, rows: int, dim: int, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        kinds = max(_CATEGORIES, rows // _PHOTOS_A_KIND)
        category_CD = random.normal(size=(_CATEGORIES, dim))
        self.category_of = random.integers(_CATEGORIES, size=kinds)
        common_D = random.normal(size=dim)  # what all photos share: cosines are not centred at 0
        centre_KD = common_D + category_CD[self.category_of] + 0.8 * random.normal(size=(kinds, dim))
        self.centre_KD = np.asarray(centre_KD, np.float32)
        sizes = random.pareto(1.5, size=kinds) + 0.2
        self._share = sizes / sizes.sum()
        scale_D = np.arange(1, dim + 1) ** -0.35  # a spectrum that falls, as features' do
        self._scale_D = np.asarray(scale_D / np.sqrt((scale_D**2).mean()), np.float32)

    def photos(self, count: int, seed: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Unit vectors (N, D), and the category of each."""
        random = np.random.default_rng(seed)
        kind_N = random.choice(len(self._share), size=count, p=self._share)
        photo_ND = np.empty((count, self.centre_KD.shape[1]), np.float32)
        for start in range(0, count, _AT_ONCE):
            kinds = kind_N[start : start + _AT_ONCE]
            photo_ND[start : start + _AT_ONCE] = self._around(self.centre_KD[kinds], random)
        return photo_ND, np.asarray(self.category_of[kind_N])

    def _around(self, centre_BD: Vectors, random: np.random.Generator) -> Vectors:
        spread_B1 = 0.7 * random.gamma(4, 0.25, size=(len(centre_BD), 1)).astype(np.float32)
        noise_BD = self._scale_D * random.standard_normal(centre_BD.shape, np.float32)
        return unit(centre_BD + spread_B1 * noise_BD)


def unit(vectors: Vectors) -> Vectors:
    """Of length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def drawn(photo_QD: Vectors, cosine: float, seed: int) -> Vectors:
    """Queries at about that cosine from the photos, as sketches are: nearest to them, near to nothing."""
    noise_QD = unit(np.random.default_rng(seed).standard_normal(photo_QD.shape, np.float32))
    return unit(cosine * photo_QD + (1 - cosine**2) ** 0.5 * noise_QD)
