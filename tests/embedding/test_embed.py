from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from ray_jobs.recipes import recipe
from serve.deadline import Deadline
from serve.deployments.sketch_decoder import _decode
from stbir.embedding import batch_search
from stbir.embedding.embed import embed_photos, embed_sketches, embed_texts, encode, eval_mode
from stbir.images import encode_png
from stbir.model import checkpoint
from stbir.model.builder import build_retriever
from tests.gallery.toy_dataset import IMAGE_SIZE, NUM_KINDS, png, toy_retriever


def test_features_keep_the_input_order_at_any_batch_size():
    images = [png(i % NUM_KINDS, 0) for i in range(11)]
    expected = embed_sketches(toy_retriever().sketch, images, batch=64)
    assert expected.argmax(axis=1).tolist() == [i % NUM_KINDS for i in range(11)]
    for batch in (1, 3, 11):
        features = embed_sketches(toy_retriever().sketch, images, batch=batch)
        np.testing.assert_allclose(features, expected, atol=1e-6)


def test_photo_and_text_features_have_the_expected_cosines():
    photo = embed_photos(toy_retriever().photo, [png(2, 5)])
    assert photo.dtype == np.float32
    cosines = photo @ embed_texts(toy_retriever().text, ["5", "2"]).T
    np.testing.assert_allclose(cosines, [[0.5**0.5, 0]], atol=1e-6)


def test_empty_input_gives_empty_features():
    assert embed_photos(toy_retriever().photo, []).shape == (0, 2 * NUM_KINDS)
    assert embed_texts(toy_retriever().text, []).shape == (0, 2 * NUM_KINDS)


def test_encode_returns_a_numpy_array():
    features = encode(toy_retriever().photo, torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8))
    assert isinstance(features, np.ndarray)


def test_eval_mode_restores_modes_after_an_error():
    module = toy_retriever().photo.train()
    try:
        with eval_mode(module):
            assert not module.training
            raise KeyError
    except KeyError:
        assert module.training
        assert module.dropout.training


def rectangle_and_square() -> tuple[bytes, bytes]:
    """A drawing of 64 x 32 pixels, and the same stretched to 32 x 32."""
    image = Image.new("RGB", (64, 32), "white")
    ImageDraw.Draw(image).line([(5, 5), (50, 25), (60, 8)], "black", 3)
    return encode_png(image), encode_png(image.resize((32, 32), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("resize", ["pad", "stretch"])
def test_every_input_is_resized_as_the_encoder_needs(resize, tmp_path):
    smoke = recipe("smoke")
    photo = replace(smoke.model.photo, preprocess=replace(smoke.model.photo.preprocess, resize=resize))
    smoke = replace(smoke, model=replace(smoke.model, photo=photo))
    checkpoint.save(str(tmp_path), "step-1", build_retriever(smoke.model), smoke, made_from="", counts={})
    model = checkpoint.load(str(tmp_path)).eval()
    rectangle, square = rectangle_and_square()

    def embed_queries(encoder, images):
        features = batch_search._embed_sketches(dict(enumerate(images)), encoder, {})
        return np.stack([features[n] for n in range(len(images))])

    def embed_served(encoder, images):
        pixels = [_decode(encoder.preprocess, image, Deadline.after(9)).pixels_1HW for image in images]
        return encode(encoder, torch.from_numpy(np.stack(pixels)))

    for embed, encoder in (
        (embed_photos, model.photo),
        (embed_sketches, model.sketch),
        (embed_queries, model.sketch),
        (embed_served, model.sketch),
    ):
        first, second = embed(encoder, [rectangle, square])
        assert np.allclose(first, second, atol=0.02) == (resize == "stretch")
