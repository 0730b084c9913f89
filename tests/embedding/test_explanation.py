"""Explanations, on sketches of synthetic objects and an encoder whose right cells are known."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stbir.config import Preprocess
from stbir.data.sources.synthetic.catalogue import Shape
from stbir.data.sources.synthetic.geometry import bounding_box, build_primitives
from stbir.data.sources.synthetic.sketch import draw_sketch
from stbir.embedding.embed import embed_query_sketches, embed_sketch_parts
from stbir.embedding.explanation import GRID, MAX_WORDS, Parts, explain, leave_out_words
from stbir.errors import InputError
from stbir.gallery.arrays import Features
from stbir.images import encode_png
from stbir.model.encoders import ImageEncoder
from stbir.model.fusion import fuse

HANDLED = Shape("jar", "cylinder", "medium", "flat", "handle", 0)


class InkPooling(nn.Module):
    """The mean ink of each cell: pixels (B, 3, H, W) from 0 to 1 → (B, GRID * GRID)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(1 - x[:, 0], GRID).flatten(1)


def ink_encoder() -> ImageEncoder:
    return ImageEncoder(
        InkPooling(), nn.Identity(), Preprocess(128, mean=(0, 0, 0), std=(1, 1, 1)), GRID * GRID
    )


def sketch_of(shape: Shape) -> bytes:
    return encode_png(draw_sketch(shape, np.random.default_rng(0)))


def fuse_equally(sketch: Features | None, text: Features | None) -> Features:
    tensors = (None if each is None else torch.tensor(each) for each in (sketch, text))
    return fuse(*tensors).numpy()  # type: ignore[arg-type]


def handle_cells() -> np.ndarray:
    """The cells (GRID, GRID) right of the body, which hold the handle alone."""
    handle, body, *_ = build_primitives(HANDLED)
    _, top, right, bottom = bounding_box(handle)
    columns = np.arange(GRID) / GRID
    rows = columns + 1 / GRID
    is_right = (columns > bounding_box(body)[2]) & (columns < right)
    return np.outer((rows > top) & (columns < bottom), is_right)


def test_contributions_are_those_of_the_cosine_in_closed_form() -> None:
    """Without cell c, the cosine s·p of unit vectors becomes (s·p - s_c p_c) / √(1 - s_c²)."""
    encoder, sketch = ink_encoder(), sketch_of(HANDLED)
    photo_D = np.random.default_rng(1).random(GRID * GRID, np.float32)
    photo_D /= np.linalg.norm(photo_D)
    [sketch_D] = embed_query_sketches(encoder, [sketch])
    cosine = sketch_D @ photo_D
    expected_D = cosine - (cosine - sketch_D * photo_D) / np.sqrt(1 - sketch_D**2)
    explanation = explain(photo_D, embed_sketch_parts(encoder, sketch), None, fuse_equally)
    assert explanation.score == pytest.approx(float(cosine), abs=1e-6)
    is_drawn = np.asarray(explanation.cells) != 0
    assert 10 < is_drawn.sum() < GRID * GRID / 2
    np.testing.assert_allclose(
        explanation.cells, np.where(is_drawn, expected_D.reshape(GRID, GRID), 0), atol=1e-5
    )


def test_a_handle_raises_the_score_of_the_object_that_has_one() -> None:
    encoder, is_handle = ink_encoder(), handle_cells()
    parts = embed_sketch_parts(encoder, sketch_of(HANDLED))
    shapes = (HANDLED, HANDLED._replace(side="none"))
    with_handle, without = (
        np.asarray(explain(photo_D, parts, None, fuse_equally).cells)
        for photo_D in embed_query_sketches(encoder, [sketch_of(shape) for shape in shapes])
    )
    assert is_handle.sum() >= 4
    assert with_handle[is_handle].sum() > 0.01
    assert without[is_handle].sum() < -0.01
    strongest = np.unravel_index((with_handle - without).argmax(), without.shape)
    assert is_handle[strongest]


@pytest.mark.parametrize(
    ("text", "words", "without_second"),
    [
        ("red leather seat", ["red", "leather", "seat"], "red  seat"),
        ("rotes Leder, glänzend", ["rotes", "Leder,", "glänzend"], "rotes  glänzend"),
        ("كرسي أحمر", ["كرسي", "أحمر"], "كرسي "),
        ("赤い椅子 red", ["赤", "い", "椅", "子", "red"], "赤椅子 red"),
    ],
)
def test_words_are_left_out_one_by_one(text: str, words: list[str], without_second: str) -> None:
    found, texts = leave_out_words(text)
    assert found == words
    assert (texts[0], texts[2], len(texts)) == (text, without_second, 1 + len(words))


def test_a_text_of_too_many_words_is_refused() -> None:
    assert len(leave_out_words("椅" * MAX_WORDS)[0]) == MAX_WORDS
    with pytest.raises(InputError, match="text: 65 words exceed the 64 that are explained"):
        leave_out_words("椅" * (MAX_WORDS + 1))


def test_parts_of_both_modalities_are_left_out_of_the_fused_query() -> None:
    rng = np.random.default_rng(2)
    photo_D, *vectors = (each / np.linalg.norm(each) for each in rng.normal(size=(6, 8)).astype(np.float32))
    sketch, text = Parts([(0, 3)], np.stack(vectors[:2])), Parts(["a", "b"], np.stack(vectors[2:]))
    explanation = explain(photo_D, sketch, text, fuse_equally)

    def score(sketch_D: Features, text_D: Features) -> float:
        query_D = sketch_D + text_D
        return float(query_D @ photo_D / np.linalg.norm(query_D))

    whole = score(vectors[0], vectors[2])
    assert explanation.score == pytest.approx(whole, abs=1e-6)
    assert explanation.cells is not None
    assert explanation.cells[0][3] == pytest.approx(whole - score(vectors[1], vectors[2]), abs=1e-6)
    expected = [whole - score(vectors[0], without) for without in vectors[3:]]
    assert dict(explanation.words) == pytest.approx(dict(zip("ab", expected, strict=True)), abs=1e-6)
    assert explain(photo_D, None, text, fuse_equally).cells is None
    assert explain(photo_D, sketch, None, fuse_equally).words == []
