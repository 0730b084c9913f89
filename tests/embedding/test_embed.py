import numpy as np
import torch

from stbir.embedding.embed import embed_photos, embed_sketches, embed_texts, encode, evaluating
from tests.gallery.world import KINDS, SIZE, knowing, png


def test_features_are_in_the_order_given_whatever_the_batch():
    pictures = [png(i % KINDS, 0) for i in range(11)]
    whole = embed_sketches(knowing().sketch, pictures, batch=64)
    assert whole.argmax(axis=1).tolist() == [i % KINDS for i in range(11)]
    for batch in (1, 3, 11):
        np.testing.assert_allclose(embed_sketches(knowing().sketch, pictures, batch=batch), whole, atol=1e-6)


def test_photos_and_texts_meet():
    photo = embed_photos(knowing().photo, [png(2, 5)])
    assert photo.dtype == np.float32
    cosines = photo @ embed_texts(knowing().text, ["5", "2"]).T
    np.testing.assert_allclose(cosines, [[0.5**0.5, 0]], atol=1e-6)


def test_nothing_in_nothing_out():
    assert embed_photos(knowing().photo, []).shape == (0, 2 * KINDS)
    assert embed_texts(knowing().text, []).shape == (0, 2 * KINDS)


def test_no_gradient_is_kept():
    features = encode(knowing().photo, torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8))
    assert isinstance(features, np.ndarray)


def test_modes_return_even_after_an_error():
    module = knowing().photo.train()
    try:
        with evaluating(module):
            assert not module.training
            raise KeyError
    except KeyError:
        assert module.training
        assert module.part.training
