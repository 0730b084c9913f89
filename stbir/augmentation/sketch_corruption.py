"""What a poor sketch looks like: strokes missing, wobble, wrong proportions, half a drawing, grainy paper.

Each distortion takes (H, W) uint8, dark strokes on white, a severity in (0, 1] and a generator, and gives the
same kind of raster. What is drawn from the generator does not hang on the severity.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stbir.images import Pixels

SketchDistortion = Literal["dropped strokes", "wobble", "wrong aspect", "partial", "noise"]

# At severity 1.
DROPPED_INK = 0.7  # share of the ink
DISPLACED = 0.06  # deviation of a point, of the longer side
SQUEEZED = 3.0  # one side becomes so many times shorter against the other
MISSING_SIDE = 0.65  # share of the ink, all on one side
DARK_GRAINS, WHITE_GRAINS = 0.04, 0.5  # shares of all grains

_WHITE = 255
_INK_BELOW = 250  # JPEG leaves grounds that are nearly white
_CELLS = 6  # along a side of the drawing, to cut a component that is more than a stroke
_STROKE_AT_MOST = 0.1  # of the ink
_KNOTS = (4, 8)  # of the displacement, along a side: a slow drift of the hand and a faster tremor
_GRAINS = 96  # along the longer side

Mask = NDArray[np.bool_]
Index = NDArray[np.int64]
Floats = NDArray[np.floating]


def _drop_strokes(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    """Some pieces of the drawing are not there. A raster knows no strokes: see `_pieces`."""
    ink = pixels < _INK_BELOW
    piece = _pieces(ink, rng)  # (n,) of each pixel of ink
    sizes = np.bincount(piece)
    order = rng.permutation(len(sizes))
    gone = np.zeros(len(sizes), np.bool_)
    gone[order] = np.cumsum(sizes[order]) <= DROPPED_INK * severity * len(piece)
    return _without(pixels, ink, gone[piece])


def _pieces(ink: Mask, rng: np.random.Generator) -> Index:
    """What may go at once: connected components; a large one, cut by the cells of a jittered grid."""
    component = _components(ink)
    sizes = np.bincount(component, minlength=1)
    large = sizes[component] > _STROKE_AT_MOST * len(component)
    cell = np.where(large, 1 + _cells(np.argwhere(ink), rng), 0)
    pieces = component * (1 + _CELLS**2) + cell
    return np.asarray(np.unique(pieces, return_inverse=True)[1], np.int64)


def _cells(points: Index, rng: np.random.Generator) -> Index:
    """The jittered centre nearest to each point (n, 2), of _CELLS² over the points' bounding box."""
    knots = np.indices((_CELLS, _CELLS)).reshape(2, -1).T
    places = (knots + rng.random(knots.shape)) / _CELLS
    if not len(points):
        return np.empty(0, np.int64)
    low, high = points.min(0), points.max(0)
    centres = low + places * (high - low)
    away = np.stack([((points - centre) ** 2).sum(1) for centre in centres])
    return np.asarray(away.argmin(0), np.int64)


def _components(ink: Mask) -> Index:
    """Labels (n,) of the pixels of ink, equal where 8-neighbours join them.

    Each takes the smallest label in reach and then its label's label, so that even a long line is named
    in a few rounds.
    """
    number = np.full((ink.shape[0] + 1, ink.shape[1] + 2), -1)  # a border on three sides, for the neighbours
    number[:-1, 1:-1][ink] = np.arange(ink.sum())
    here = number[:-1, 1:-1]
    beside = (number[:-1, 2:], number[1:, 1:-1], number[1:, 2:], number[1:, :-2])
    pairs = np.concatenate([np.stack([here, other], -1)[(here >= 0) & (other >= 0)] for other in beside])
    label = np.arange(ink.sum())
    while True:
        least = label.copy()
        lower = label[pairs].min(1)
        for end in pairs.T:
            np.minimum.at(least, label[end], lower)
        least = least[least]
        if (least == label).all():
            return label
        label = least


def _wobble(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    """Lines go astray, smoothly: each pixel is taken from a place beside it."""
    away = DISPLACED * severity * max(pixels.shape)
    rows, columns = np.indices(pixels.shape)
    return _sampled(pixels, rows + away * _smooth(pixels, rng), columns + away * _smooth(pixels, rng))


def _smooth(pixels: Pixels, rng: np.random.Generator) -> Floats:
    """A smooth random field (H, W) of deviation about 1. More of the faster noise would fold the paper."""
    size = pixels.shape[::-1]
    fields = [Image.fromarray(rng.standard_normal((knots, knots), np.float32)) for knots in _KNOTS]
    slow, fast = (np.asarray(field.resize(size, Image.Resampling.BICUBIC)) for field in fields)
    return slow + fast / 4


def _sampled(pixels: Pixels, rows: Floats, columns: Floats) -> Pixels:
    """Bilinear values at fractional places, (H, W) each; white outside."""
    paper = np.pad(pixels.astype(np.float32), 1, constant_values=_WHITE)
    rows = np.clip(rows + 1, 0, paper.shape[0] - 1.001)
    columns = np.clip(columns + 1, 0, paper.shape[1] - 1.001)
    top, left = rows.astype(int), columns.astype(int)
    down, right = rows - top, columns - left
    upper = paper[top, left] * (1 - right) + paper[top, left + 1] * right
    lower = paper[top + 1, left] * (1 - right) + paper[top + 1, left + 1] * right
    values = np.rint(upper * (1 - down) + lower * down)
    return np.asarray(values, np.uint8)


def _squeeze(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    """Wrong aspect: one side of the drawing too short. Nothing leaves the paper, as stretching would."""
    height, width = pixels.shape
    factor = SQUEEZED**severity
    tall = rng.random() < 0.5
    size = (max(1, round(width / factor)), height) if tall else (width, max(1, round(height / factor)))
    small = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    paper = Image.new("L", (width, height), _WHITE)
    paper.paste(small, ((width - size[0]) // 2, (height - size[1]) // 2))
    return np.array(paper)


def _cut_side(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    """Partial: what lies beyond a straight line, in any direction, is not drawn."""
    ink = pixels < _INK_BELOW
    angle = rng.uniform(0, 2 * np.pi)
    along = np.argwhere(ink) @ np.array([np.sin(angle), np.cos(angle)])
    gone = along.argsort(kind="stable").argsort() < MISSING_SIDE * severity * len(along)
    return _without(pixels, ink, gone)


def _specks(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    """Noise: dark grains on the paper, and white ones that break the lines."""
    height, width = pixels.shape
    side = max(1, max(pixels.shape) // _GRAINS)
    dice = rng.random((-(-height // side), -(-width // side)))
    dice = dice.repeat(side, 0).repeat(side, 1)[:height, :width]
    broken = np.where(dice > 1 - WHITE_GRAINS * severity, _WHITE, pixels)
    return np.where(dice < DARK_GRAINS * severity, 0, broken).astype(np.uint8)


def _without(pixels: Pixels, ink: Mask, gone: Mask) -> Pixels:
    """The drawing without those pixels of `ink` (n of them) that are `gone` (n,)."""
    out = pixels.copy()
    out[ink] = np.where(gone, _WHITE, pixels[ink])
    return out


SKETCH_DISTORTIONS: dict[SketchDistortion, Callable[[Pixels, float, np.random.Generator], Pixels]] = {
    "dropped strokes": _drop_strokes,
    "wobble": _wobble,
    "wrong aspect": _squeeze,
    "partial": _cut_side,
    "noise": _specks,
}
