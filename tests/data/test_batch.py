"""What a worker gets: the seed decides every view, sketch and photo are flipped together, words go."""

import io

import numpy as np
import pytest
from PIL import Image

from stbir.augmentation.query_corruption import distort_sketch, distort_text
from stbir.config import Augmentation
from stbir.data.batch import Batch, Encoded, decoded

N = 16


def half_black(size: int = 32) -> bytes:
    """Black on the left, white on the right."""
    pixels = np.full((size, size), 255, np.uint8)
    pixels[:, : size // 2] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def batch(augment: Augmentation | None, first: int = 0, **noise: object) -> Batch:
    rows = Encoded(
        stage=0,
        number=0,
        rows_a_sample=1,
        photo=np.arange(N),
        sketch=np.zeros(N, np.int64),
        position=first + np.arange(N),
        sketches=[half_black()] * N,
        photos=[half_black()] * N,
        texts=["red oak stool"] * N,
    )
    return decoded(rows, sketch_size=32, photo_size=32, seed=0, augment=augment, **noise)  # type: ignore[arg-type]


def pixels(of: Batch) -> tuple[np.ndarray, np.ndarray]:
    assert of.sketches is not None
    assert of.photos is not None
    return of.sketches, of.photos


STILL = Augmentation(scale=0, shift=0, rotate=0, photo_ratio=0)


def test_without_augmentation_it_is_what_was_encoded() -> None:
    sketches, photos = pixels(batch(None))
    assert (sketches.shape, photos.shape) == ((N, 1, 32, 32), (N, 3, 32, 32))
    assert (sketches[:, :, :, :16] == 0).all()
    assert (photos[:, :, :, 16:] == 255).all()
    assert batch(None).texts == ["red oak stool"] * N


def test_sketch_and_photo_of_a_sample_are_flipped_together() -> None:
    sketches, photos = pixels(batch(STILL))
    flipped = sketches[:, 0, 0, 0] == 255
    assert 0 < flipped.sum() < N
    assert (flipped == (photos[:, 0, 0, 0] == 255)).all()


def test_the_place_in_the_stage_decides_the_view_not_the_share_it_is_read_in() -> None:
    augment = Augmentation(word_dropout=0.5)
    whole, later = batch(augment), batch(augment, first=4)
    for a, b in zip(pixels(whole), pixels(later), strict=True):
        assert (a[4:] == b[:-4]).all()
    assert whole.texts is not None
    assert later.texts is not None
    assert whole.texts[4:] == later.texts[:-4]
    assert len(set(whole.texts)) > 1


@pytest.mark.parametrize("modality", ["sketch", "photo"])
def test_noise_falls_on_the_modality_it_is_given_for(modality: str) -> None:
    certain = (np.ones(N), np.ones(N))
    clean, noisy = pixels(batch(None)), pixels(batch(None, **{f"{modality}_noise": certain}))
    changed = [bool((a != b).any()) for a, b in zip(clean, noisy, strict=True)]
    assert changed == [modality == "sketch", modality == "photo"]


def test_poor_queries_are_those_of_the_distortions() -> None:
    certain = (np.ones(N), np.full(N, 0.5))
    poor = batch(None, sketch_noise=certain, text_noise=certain, poor=True)
    clean = batch(None)
    for row in range(N):
        dice = np.random.default_rng((0, 0, row, 0))
        dice.random()  # whether it is distorted
        severity = 0.5 * dice.random()
        assert poor.texts is not None
        assert clean.texts is not None
        assert poor.texts[row] == distort_text(clean.texts[row], severity, dice)
        dice.random()
        severity = 0.5 * dice.random()
        sketch = distort_sketch(pixels(clean)[0][row], severity, dice)
        assert (pixels(poor)[0][row] == sketch).all()
    assert (pixels(poor)[1] == pixels(clean)[1]).all()
    assert len(set(poor.texts or [])) > 1
