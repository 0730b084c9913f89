"""Explanation of a hit: how much each cell of the sketch and each word of the text raised its score.

The contribution of a part is the score less the score without that part (occlusion: Zeiler and Fergus, ECCV
2014, arXiv 1311.2901, section 4.2), the same for all encoders and backends. See docs/decisions/0051.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np

from stbir.errors import InputError
from stbir.gallery.arrays import Features
from stbir.images import Pixels

GRID = 8  # cells a side
MAX_WORDS = 64  # of an explained text; each costs an encoding
_PAPER, _WHITE = 231, 255  # grey levels; a cell with a pixel darker than `_PAPER` has a stroke
# A word; in kana and ideographs, which are written without spaces, a character.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+")
Fuse = Callable[[Features | None, Features | None], Features]  # of sketch and text (B, D) → (B, D)


class Parts(NamedTuple):
    """The P parts of a sketch or a text, and vectors (1 + P, D): of the whole, then without each part."""

    names: Sequence[Any]
    vectors: Features


@dataclass(frozen=True)
class Explanation:
    """What each part of a query contributed to the score of a photo.

    score: cosine of sketch and text with the photo. cells: contributions, GRID rows of GRID cells from the
    top left of the encoder's square input, 0 without a stroke; None without a sketch. words: each word of the
    text in order, with its contribution. Contributions below 0 lowered the score. They need not sum to it.
    """

    score: float
    cells: list[list[float]] | None
    words: list[tuple[str, float]]


def occlude_cells(pixels_CHW: Pixels) -> tuple[list[tuple[int, int]], Pixels]:
    """The cells (row, column) with a stroke, and the sketch (1 + P, C, H, W): whole, then each cell white."""
    edges = np.linspace(0, pixels_CHW.shape[-1], GRID + 1).round().astype(int)
    sides = [slice(start, stop) for start, stop in pairwise(edges)]
    cells = [
        (row, column)
        for row, column in product(range(GRID), repeat=2)
        if pixels_CHW[:, sides[row], sides[column]].min() < _PAPER
    ]
    sketches_PCHW = np.repeat(pixels_CHW[None], 1 + len(cells), axis=0)
    for sketch_CHW, (row, column) in zip(sketches_PCHW[1:], cells, strict=True):
        sketch_CHW[:, sides[row], sides[column]] = _WHITE
    return cells, sketches_PCHW


def leave_out_words(text: str) -> tuple[list[str], list[str]]:
    """The words of a text, and texts: the whole, then without each word. Raises InputError over MAX_WORDS."""
    words = list(_WORD.finditer(text))
    if len(words) > MAX_WORDS:
        raise InputError(f"text: {len(words)} words exceed the {MAX_WORDS} that are explained; shorten it")
    shortened = [text[: word.start()] + text[word.end() :] for word in words]
    return [word[0] for word in words], [text, *shortened]


def explain(photo_D: Features, sketch: Parts | None, text: Parts | None, fuse: Fuse) -> Explanation:
    """Explain the score of a photo (D,) for a sketch, a text or both. Raises InputError as `fuse` does."""

    def scores(sketch_BD: Features | None, text_BD: Features | None) -> Features:
        """(B,); one of the two may have a single row."""
        if sketch_BD is not None and text_BD is not None:
            sketch_BD, text_BD = np.broadcast_arrays(sketch_BD, text_BD)
        return np.asarray(fuse(sketch_BD, text_BD) @ photo_D)

    sketch_1D, text_1D = (None if parts is None else parts.vectors[:1] for parts in (sketch, text))
    [score] = scores(sketch_1D, text_1D)
    cells, words = None, []
    if sketch is not None:
        cells_GG = np.zeros((GRID, GRID))
        for cell, without in zip(sketch.names, scores(sketch.vectors[1:], text_1D), strict=True):
            cells_GG[cell] = score - without
        cells = cells_GG.tolist()
    if text is not None:
        without_W = scores(sketch_1D, text.vectors[1:])
        words = list(zip(text.names, (score - without_W).tolist(), strict=True))
    return Explanation(float(score), cells, words)
