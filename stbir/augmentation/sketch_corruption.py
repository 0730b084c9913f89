"""Corruptions of sketches: missing strokes, wobble, wrong aspect ratio, partial drawing, noise.

Each takes (H, W) uint8, dark strokes on white, a severity in (0, 1] and an rng, and returns the same shape.
The draws from the rng do not depend on the severity.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stbir.images import Pixels

SketchCorruption = Literal["dropped strokes", "wobble", "wrong aspect", "partial", "noise"]

# Parameters at severity 1.
DROPPED_INK = 0.7  # fraction of the ink
DISPLACEMENT_SD = 0.06  # of a pixel, as a fraction of the longer side
ASPECT_FACTOR = 3.0  # by which one side becomes shorter relative to the other
PARTIAL_INK = 0.65  # fraction of the ink, all on one side
DARK_GRAINS, WHITE_GRAINS = 0.04, 0.5  # fractions of all grains

_WHITE = 255
_INK_THRESHOLD = 250  # JPEG backgrounds are not exactly white
_GRID_CELLS = 6  # per side; the grid cuts large components into pieces
_MAX_PIECE = 0.1  # fraction of the ink above which a component is cut
_FIELD_SIZES = (4, 8)  # grid sizes of the displacement: a slow drift of the hand and a faster tremor
_GRAINS = 96  # along the longer side

Mask = NDArray[np.bool_]
Index = NDArray[np.int64]
Floats = NDArray[np.floating]


def _drop_strokes(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    """Erase random pieces of the drawing. A raster has no strokes, so the pieces come from `_split_ink`."""
    ink = pixels < _INK_THRESHOLD
    piece = _split_ink(ink, rng)  # (n,) of each ink pixel
    sizes = np.bincount(piece)
    order = rng.permutation(len(sizes))
    dropped = np.zeros(len(sizes), np.bool_)
    dropped[order] = np.cumsum(sizes[order]) <= DROPPED_INK * severity * len(piece)
    return _erase(pixels, ink, dropped[piece])


def _split_ink(ink: Mask, rng: np.random.Generator) -> Index:
    """Piece number (n,) of each ink pixel: connected components, large ones cut by a jittered grid."""
    component = _label_components(ink)
    sizes = np.bincount(component, minlength=1)
    large = sizes[component] > _MAX_PIECE * len(component)
    cell = np.where(large, 1 + _assign_cells(np.argwhere(ink), rng), 0)
    pieces = component * (1 + _GRID_CELLS**2) + cell
    return np.asarray(np.unique(pieces, return_inverse=True)[1], np.int64)


def _assign_cells(points: Index, rng: np.random.Generator) -> Index:
    """Nearest cell of each point (n, 2), among _GRID_CELLS² jittered centres in the points' bounding box."""
    grid = np.indices((_GRID_CELLS, _GRID_CELLS)).reshape(2, -1).T
    positions = (grid + rng.random(grid.shape)) / _GRID_CELLS
    if not len(points):
        return np.empty(0, np.int64)
    low, high = points.min(0), points.max(0)
    centres = low + positions * (high - low)
    distances = np.stack([((points - centre) ** 2).sum(1) for centre in centres])
    return np.asarray(distances.argmin(0), np.int64)


def _label_components(ink: Mask) -> Index:
    """Connected-component labels (n,) of the ink pixels, with 8-connectivity.

    Each round takes the smallest label of the neighbours, then that label's own label (pointer jumping), so
    that long lines converge in a few rounds.
    """
    number = np.full((ink.shape[0] + 1, ink.shape[1] + 2), -1)  # a border on three sides, for the neighbours
    number[:-1, 1:-1][ink] = np.arange(ink.sum())
    centre = number[:-1, 1:-1]
    neighbours = (number[:-1, 2:], number[1:, 1:-1], number[1:, 2:], number[1:, :-2])
    pairs = np.concatenate([np.stack([centre, n], -1)[(centre >= 0) & (n >= 0)] for n in neighbours])
    label = np.arange(ink.sum())
    while True:
        smallest = label.copy()
        pair_minimum = label[pairs].min(1)
        for members in pairs.T:
            np.minimum.at(smallest, label[members], pair_minimum)
        smallest = smallest[smallest]
        if (smallest == label).all():
            return label
        label = smallest


def _wobble(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    """Displace lines smoothly."""
    scale = DISPLACEMENT_SD * severity * max(pixels.shape)
    rows, columns = np.indices(pixels.shape)
    down, right = (scale * _smooth_field(pixels, rng) for _ in range(2))
    return _interpolate(pixels, rows + down, columns + right)


def _smooth_field(pixels: Pixels, rng: np.random.Generator) -> Floats:
    """Smooth random field (H, W) with a standard deviation of about 1."""
    size = pixels.shape[::-1]
    fields = [Image.fromarray(rng.standard_normal((side, side), np.float32)) for side in _FIELD_SIZES]
    slow, fast = (np.asarray(field.resize(size, Image.Resampling.BICUBIC)) for field in fields)
    return slow + fast / 4  # a larger fast part would make the displacement fold over itself


def _interpolate(pixels: Pixels, rows: Floats, columns: Floats) -> Pixels:
    """Bilinear values at fractional coordinates, (H, W) each; white outside."""
    padded = np.pad(pixels.astype(np.float32), 1, constant_values=_WHITE)
    rows = np.clip(rows + 1, 0, padded.shape[0] - 1.001)
    columns = np.clip(columns + 1, 0, padded.shape[1] - 1.001)
    top, left = rows.astype(int), columns.astype(int)
    down, right = rows - top, columns - left
    upper = padded[top, left] * (1 - right) + padded[top, left + 1] * right
    lower = padded[top + 1, left] * (1 - right) + padded[top + 1, left + 1] * right
    values = np.rint(upper * (1 - down) + lower * down)
    return np.asarray(values, np.uint8)


def _change_aspect(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    """Shrink one side of the drawing. Stretching the other would move ink out of the image."""
    height, width = pixels.shape
    factor = ASPECT_FACTOR**severity
    tall = rng.random() < 0.5
    size = (max(1, round(width / factor)), height) if tall else (width, max(1, round(height / factor)))
    resized = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    image = Image.new("L", (width, height), _WHITE)
    image.paste(resized, ((width - size[0]) // 2, (height - size[1]) // 2))
    return np.array(image)


def _cut_side(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    """Erase the ink on one side of a straight line in a random direction."""
    ink = pixels < _INK_THRESHOLD
    angle = rng.uniform(0, 2 * np.pi)
    projection = np.argwhere(ink) @ np.array([np.sin(angle), np.cos(angle)])
    rank = projection.argsort(kind="stable").argsort()
    return _erase(pixels, ink, rank < PARTIAL_INK * severity * len(projection))


def _add_grains(pixels: Pixels, severity: float, rng: np.random.Generator) -> Pixels:
    """Add dark grains, and white grains that interrupt the lines."""
    height, width = pixels.shape
    side = max(1, max(pixels.shape) // _GRAINS)
    draws = rng.random((-(-height // side), -(-width // side)))
    draws = draws.repeat(side, 0).repeat(side, 1)[:height, :width]
    interrupted = np.where(draws > 1 - WHITE_GRAINS * severity, _WHITE, pixels)
    return np.where(draws < DARK_GRAINS * severity, 0, interrupted).astype(np.uint8)


def _erase(pixels: Pixels, ink: Mask, erased: Mask) -> Pixels:
    """Set the `erased` (n,) of the n ink pixels to white."""
    out = pixels.copy()
    out[ink] = np.where(erased, _WHITE, pixels[ink])
    return out


SKETCH_CORRUPTIONS: dict[SketchCorruption, Callable[[Pixels, float, np.random.Generator], Pixels]] = {
    "dropped strokes": _drop_strokes,
    "wobble": _wobble,
    "wrong aspect": _change_aspect,
    "partial": _cut_side,
    "noise": _add_grains,
}
