"""Noise curriculum: probability and strength grow within a stage (module 3 of arXiv 2604.15735)."""

import numpy as np
from numpy.typing import NDArray

from stbir.config import Noise

FloatArray = NDArray[np.float64]


def noise_level(noise: Noise, epoch: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(probability, strength) at the given, possibly fractional epochs of the stage, shaped as `epoch`.

    r = clip((e - start) / ramp, 0, 1); p = p0 + (pmax - p0)·r; σ = σ0 + (σmax - σ0)·r.
    """
    r = np.clip((epoch - noise.start) / noise.ramp, 0, 1)
    (p0, p1), (s0, s1) = noise.probability, noise.strength
    return p0 + (p1 - p0) * r, s0 + (s1 - s0) * r
