"""Statistics of a gallery's vectors, each from a fixed sample of rows at its first use."""

from functools import cached_property

import numpy as np

from stbir.gallery.arrays import Features, Indices
from stbir.gallery.rows import VectorArray
from stbir.gallery.search import Searcher

_MEAN_SAMPLE = 16_384  # rows; the mean of more does not change in its third digit
_DISTANCE_SAMPLE = 256  # rows whose neighbours are searched; half a second with an index
# Up to nine copies of each photo leave the distance to the tenth neighbour one between different items.
_NEIGHBOUR = 10
# Measured: docs/experiments.md, "Steered search: near-duplicates".
_DUPLICATE_SHARE = 1 / 50
# Cosines of equal vectors differ from 1 by less.
_ROUNDING = 1e-5


class VectorStatistics:
    """The mean of a gallery's vectors, and from which cosine on two photos are near-duplicates."""

    def __init__(self, searcher: Searcher, photo_ND: VectorArray, num_rows: int) -> None:
        self._searcher, self._photo_ND, self._num_rows = searcher, photo_ND, num_rows

    @cached_property
    def mean(self) -> Features:
        """The mean vector (D,), not normalised: `v @ mean` is the mean cosine of v with the photos."""
        photo_RD = self._photo_ND[self._sample(_MEAN_SAMPLE)]
        return np.asarray(photo_RD.mean(axis=0), np.float32)

    @cached_property
    def duplicate_cosine(self) -> float:
        """Two photos with this cosine or a higher one are near-duplicates.

        Their distance, 1 - cosine, is at most a fiftieth of the median distance between a photo and its tenth
        neighbour. A small gallery takes its furthest photo instead.
        """
        photo_RD = np.asarray(self._photo_ND[self._sample(_DISTANCE_SAMPLE)])
        rankings = self._searcher.nearest(photo_RD, min(_NEIGHBOUR + 1, self._num_rows), None)
        distances = [1 - float(ranking.scores[-1]) for ranking in rankings]
        return 1 - max(_ROUNDING, _DUPLICATE_SHARE * float(np.median(distances)))

    def _sample(self, size: int) -> Indices:
        """Evenly spaced row indices, at most `size`."""
        return np.linspace(0, self._num_rows - 1, min(size, self._num_rows)).astype(np.int64)
