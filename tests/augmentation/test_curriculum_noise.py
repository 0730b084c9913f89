import numpy as np
import pytest

from stbir.augmentation.curriculum_noise import (
    PHOTO_CUT_OUT,
    SKETCH_CUT_OUT,
    corrupt_photo,
    corrupt_sketch,
    drop_words,
)

GREY = np.full((3, 64, 64), 128, np.uint8)
PAPER = np.full((1, 64, 64), 100, np.uint8)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_the_seed_decides_and_the_input_stays(strength: float) -> None:
    for corrupt, clean in ((corrupt_photo, GREY), (corrupt_sketch, PAPER)):
        before = clean.copy()
        first, again = (corrupt(clean, strength, np.random.default_rng(3)) for _ in range(2))
        assert (first == again).all()
        assert (clean == before).all()
        assert (first.shape, first.dtype) == (clean.shape, np.uint8)


def test_noise_grows_with_strength() -> None:
    for corrupt, clean in ((corrupt_photo, GREY), (corrupt_sketch, PAPER)):
        spread = [corrupt(clean, s, np.random.default_rng(0)).astype(float).std() for s in (0.0, 0.5, 1.0)]
        assert spread == sorted(spread)
        assert spread[0] < spread[2]


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_the_cut_out_has_the_area_and_colour_of_the_reference(strength: float) -> None:
    photo = corrupt_photo(GREY, strength, np.random.default_rng(1))
    black = (photo == 0).all(0).mean()
    low, high = PHOTO_CUT_OUT
    assert black == pytest.approx(low + (high - low) * strength, rel=0.15)
    sketch = corrupt_sketch(np.zeros((1, 64, 64), np.uint8), 0.0, np.random.default_rng(1))
    low, high = SKETCH_CUT_OUT
    assert (sketch == 255).mean() == pytest.approx(low, rel=0.2)


def test_words_go_in_the_share_asked_for_and_one_stays() -> None:
    text = " ".join(f"w{n}" for n in range(1000))
    kept = drop_words(text, 0.3, np.random.default_rng(0)).split()
    assert len(kept) == pytest.approx(700, abs=50)
    assert kept == sorted(kept, key=lambda word: int(word[1:]))
    assert drop_words("red oak stool", 0.0, np.random.default_rng(0)) == "red oak stool"
    assert drop_words("red oak stool", 1.0, np.random.default_rng(0)) == "red"
    assert drop_words("", 1.0, np.random.default_rng(0)) == ""
