"""Decoding of batches: views depend on the seed and the position, noise on the modality."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from stbir.augmentation.query_corruption import corrupt_sketch, corrupt_text
from stbir.config import MODALITY_OF, VIEWS, Augmentation, Preprocess
from stbir.data.batch import Batch, EncodedBatch, decode_batch

N = 16
INPUT = Preprocess(32, (0, 0, 0), (1, 1, 1))
FLIP_ONLY = Augmentation(scale=0, shift=0, rotate=0, photo_ratio=0)


def half_black_png(size: int = 32, upside_down: bool = False) -> bytes:
    """Black on the left, white on the right; or black at the bottom."""
    pixels = np.full((size, size), 255, np.uint8)
    pixels[:, : size // 2] = 0
    pixels = np.rot90(pixels) if upside_down else pixels
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def decode(augment: Augmentation | None, start: int = 0, **options: object) -> Batch:
    batch = EncodedBatch(
        stage=0,
        number=0,
        rows_per_sample=1,
        photo=np.arange(N),
        sketch=np.zeros(N, np.int64),
        position=start + np.arange(N),
        sketches=[half_black_png()] * N,
        photos=[half_black_png()] * N,
        texts=["red oak stool"] * N,
        other_sketches=[half_black_png(upside_down=True)] * N,
    )
    return decode_batch(batch, sketch=INPUT, photo=INPUT, seed=0, augment=augment, **options)  # type: ignore[arg-type]


def pixels(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    assert batch.sketches is not None
    assert batch.photos is not None
    return batch.sketches, batch.photos


def test_images_and_texts_are_unchanged_by_default() -> None:
    batch = decode(None)
    sketches, photos = pixels(batch)
    assert (sketches.shape, photos.shape) == ((N, 1, 32, 32), (N, 3, 32, 32))
    assert (sketches[:, :, :, :16] == 0).all()
    assert (photos[:, :, :, 16:] == 255).all()
    assert batch.texts == ["red oak stool"] * N


def test_sketch_and_photo_of_a_sample_have_the_same_flip() -> None:
    sketches, photos = pixels(decode(FLIP_ONLY))
    flipped = sketches[:, 0, 0, 0] == 255
    assert 0 < flipped.sum() < N
    assert (flipped == (photos[:, 0, 0, 0] == 255)).all()


def test_views_depend_on_the_position_in_the_stage() -> None:
    augment = Augmentation(word_dropout=0.5)
    batch, shifted = decode(augment), decode(augment, start=4)
    for a, b in zip(pixels(batch), pixels(shifted), strict=True):
        assert (a[4:] == b[:-4]).all()
    assert batch.texts is not None
    assert shifted.texts is not None
    assert batch.texts[4:] == shifted.texts[:-4]
    assert len(set(batch.texts)) > 1


@pytest.mark.parametrize("modality", ["sketch", "photo"])
def test_noise_changes_its_modality_only(modality: str) -> None:
    noise = (np.ones(N), np.ones(N))
    clean, noisy = pixels(decode(None)), pixels(decode(None, noise={modality: noise}))
    changed = [bool((a != b).any()) for a, b in zip(clean, noisy, strict=True)]
    assert changed == [modality == "sketch", modality == "photo"]


def test_query_corruption_equals_corrupting_each_row_by_its_own_rng() -> None:
    noise = (np.ones(N), np.full(N, 0.5))
    corrupted = decode(None, noise={"sketch": noise, "text": noise}, use_query_corruption=True)
    clean = decode(None)
    assert corrupted.texts is not None
    assert clean.texts is not None
    for row in range(N):
        rng = np.random.default_rng((0, 0, row, 0))
        rng.random()  # compared with the probability
        severity = 0.5 * rng.random()
        assert corrupted.texts[row] == corrupt_text(clean.texts[row], severity, rng)
        rng.random()
        severity = 0.5 * rng.random()
        sketch = corrupt_sketch(pixels(clean)[0][row], severity, rng)
        assert (pixels(corrupted)[0][row] == sketch).all()
    assert (pixels(corrupted)[1] == pixels(clean)[1]).all()
    assert len(set(corrupted.texts)) > 1


def test_views_of_a_sample_change_nothing_else() -> None:
    noise = dict.fromkeys(("sketch", "photo"), (np.full(N, 0.5), np.ones(N)))
    plain = decode(Augmentation(word_dropout=0.5), noise=noise)
    batch = decode(Augmentation(word_dropout=0.5), noise=noise, views=VIEWS)
    assert batch.views.keys() == set(VIEWS)
    assert plain.texts == batch.texts
    for a, b in zip(pixels(plain), pixels(batch), strict=True):
        assert (a == b).all()
    for view, images in batch.views.items():
        assert images.shape == pixels(batch)[0 if MODALITY_OF[view] == "sketch" else 1].shape


def test_flipped_view_is_the_mirror_image() -> None:
    for augment in (None, FLIP_ONLY, Augmentation(shift=0)):
        batch = decode(augment, views=("flipped_sketch", "flipped_photo"))
        for images, view in zip(pixels(batch), batch.views.values(), strict=True):
            difference = np.abs(view.astype(int) - images[..., ::-1])
            assert np.median(difference) == 0
            assert (difference > 64).mean() < (0.15 if augment and augment.scale else 0.001)


def test_warped_view_has_the_flip_of_its_sample_and_another_geometry() -> None:
    batch = decode(FLIP_ONLY, views=("warped_sketch", "warped_photo"))
    for images, view in zip(pixels(batch), batch.views.values(), strict=True):
        assert (images == view).all()  # nothing but the flip is random
    batch = decode(Augmentation(), views=("warped_sketch", "warped_photo"))
    for images, view in zip(pixels(batch), batch.views.values(), strict=True):
        assert (images != view).any((1, 2, 3)).all()


def test_other_sketch_is_decoded_from_its_own_image() -> None:
    batch = decode(None, views=("other_sketch",))
    other = batch.views["other_sketch"]
    assert (other[:, 0, 24:] == 0).all()
    assert (other[:, 0, :8] == 255).all()


@pytest.mark.parametrize("modality", ["sketch", "photo"])
def test_noise_changes_the_views_of_its_modality_only(modality: str) -> None:
    noise = (np.ones(N), np.ones(N))
    clean, noisy = (
        decode(None, noise=noises, views=("other_sketch", "flipped_photo"))
        for noises in ({}, {modality: noise})
    )
    changed = {MODALITY_OF[view] for view in clean.views if (clean.views[view] != noisy.views[view]).any()}
    assert changed == {modality}


def test_images_are_resized_as_their_encoder_needs() -> None:
    buffer = io.BytesIO()
    Image.new("L", (64, 32)).save(buffer, "PNG")
    image = buffer.getvalue()
    one = np.zeros(1, np.int64)
    batch = EncodedBatch(0, 0, 1, one, one, one, [image], [image], [], [image])
    for sketch, photo in (("pad", "stretch"), ("stretch", "pad")):
        inputs = (replace(INPUT, resize=resize) for resize in (sketch, photo))
        decoded = decode_batch(
            batch, **dict(zip(("sketch", "photo"), inputs, strict=True)), seed=0, views=VIEWS
        )
        for resize, images in zip((sketch, photo), pixels(decoded), strict=True):
            assert (images.max() == 255) == (resize == "pad")
        for view, images in decoded.views.items():
            assert (images.max() == 255) == ((sketch if MODALITY_OF[view] == "sketch" else photo) == "pad")
