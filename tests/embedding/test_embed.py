import numpy as np
import torch

from stbir.embedding.embed import embed_photos, embed_sketches, embed_texts, encode, eval_mode
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
