"""Rankings: row indices and scores, best first. Equal scores keep the order of the table."""

from dataclasses import dataclass

import numpy as np

from stbir.gallery.arrays import Features, Indices, Mask


@dataclass(frozen=True)
class Ranking:
    """Row indices (R,), best first, and their scores (R,)."""

    indices: Indices
    scores: Features

    def __len__(self) -> int:
        return len(self.indices)

    def select(self, rows: Indices | Mask) -> "Ranking":
        """The part at these positions, or where a mask is true."""
        return Ranking(self.indices[rows], self.scores[rows])


def rank(indices: Indices, scores_R: Features, k: int) -> Ranking:
    """The k best of the rows `indices` (R,), ascending."""
    return Ranking(indices, scores_R).select(top_k(scores_R, k))


def top_k(scores_N: Features, k: int) -> Indices:
    """The positions of the k best scores, best first; ties keep their order."""
    if k < len(scores_N):
        candidates = np.flatnonzero(scores_N >= kth_best(scores_N, k))
    else:
        candidates = np.arange(len(scores_N))
    order = np.argsort(-scores_N[candidates], kind="stable")[:k]
    return np.asarray(candidates[order], np.int64)


def kth_best(scores_N: Features, k: int) -> np.float32:
    """The k-th best of at least k scores."""
    place = len(scores_N) - k
    return np.float32(np.partition(scores_N, place)[place])


def cosines(photo_RD: Features, photo_D: Features) -> Features:
    """Cosines (R,) of unit vectors, each independent of the other rows.

    In a matrix product, the last digit of a score depends on them. Besides, a product of BLAS waits for all
    its threads, which takes milliseconds on a busy machine; this one runs in the calling thread.
    """
    return np.asarray(np.vecdot(photo_RD, photo_D), np.float32)
