"""Noise of the curriculum: photo noise, sketch noise and word dropout."""

import numpy as np
import pytest

from stbir.augmentation.curriculum_noise import (
    PHOTO_CUT_OUT,
    SKETCH_CUT_OUT,
    add_photo_noise,
    add_sketch_noise,
    apply_word_dropout,
)

GREY = np.full((3, 64, 64), 128, np.uint8)
PAPER = np.full((1, 64, 64), 100, np.uint8)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_noise_is_reproducible_and_leaves_its_input_unchanged(strength: float) -> None:
    for add_noise, clean in ((add_photo_noise, GREY), (add_sketch_noise, PAPER)):
        before = clean.copy()
        noisy, repeated = (add_noise(clean, strength, np.random.default_rng(3)) for _ in range(2))
        assert (noisy == repeated).all()
        assert (clean == before).all()
        assert (noisy.shape, noisy.dtype) == (clean.shape, np.uint8)


def test_noise_increases_with_strength() -> None:
    for add_noise, clean in ((add_photo_noise, GREY), (add_sketch_noise, PAPER)):
        spread = [add_noise(clean, s, np.random.default_rng(0)).astype(float).std() for s in (0.0, 0.5, 1.0)]
        assert spread == sorted(spread)
        assert spread[0] < spread[2]


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_the_cut_out_has_the_area_and_colour_of_the_reference_recipe(strength: float) -> None:
    photo = add_photo_noise(GREY, strength, np.random.default_rng(1))
    black = (photo == 0).all(0).mean()
    low, high = PHOTO_CUT_OUT
    assert black == pytest.approx(low + (high - low) * strength, rel=0.15)
    sketch = add_sketch_noise(np.zeros((1, 64, 64), np.uint8), 0.0, np.random.default_rng(1))
    low, high = SKETCH_CUT_OUT
    assert (sketch == 255).mean() == pytest.approx(low, rel=0.2)


def test_word_dropout_drops_the_expected_fraction_and_leaves_one_word() -> None:
    text = " ".join(f"w{n}" for n in range(1000))
    remaining = apply_word_dropout(text, 0.3, np.random.default_rng(0)).split()
    assert len(remaining) == pytest.approx(700, abs=50)
    assert remaining == sorted(remaining, key=lambda word: int(word[1:]))
    assert apply_word_dropout("red oak stool", 0.0, np.random.default_rng(0)) == "red oak stool"
    assert apply_word_dropout("red oak stool", 1.0, np.random.default_rng(0)) == "red"
    assert apply_word_dropout("", 1.0, np.random.default_rng(0)) == ""
