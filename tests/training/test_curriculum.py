import numpy as np
import pytest

from ray_jobs.recipes.stages import PHOTO_NOISE, SKETCH_NOISE
from stbir.config import Noise
from stbir.training.curriculum import noise_level


@pytest.mark.parametrize(
    ("noise", "epoch", "probability", "strength"),
    [
        (SKETCH_NOISE, 0, 0.05, 0.2),
        (SKETCH_NOISE, 2, 0.375, 0.6),
        (SKETCH_NOISE, 4, 0.7, 1.0),
        (SKETCH_NOISE, 7.5, 0.7, 1.0),
        (PHOTO_NOISE, 0, 0.05, 0.2),
        (PHOTO_NOISE, 2, 0.05, 0.2),
        (PHOTO_NOISE, 5, 0.325, 0.6),
        (PHOTO_NOISE, 12, 0.6, 1.0),
    ],
)
def test_ramps_of_the_reference_recipe(
    noise: Noise, epoch: float, probability: float, strength: float
) -> None:
    p, s = noise_level(noise, np.array([epoch], float))
    assert (p[0], s[0]) == (pytest.approx(probability), pytest.approx(strength))


def test_noise_level_never_decreases_within_a_stage() -> None:
    for values in noise_level(PHOTO_NOISE, np.linspace(0, 12, 97)):
        assert (np.diff(values) >= 0).all()
