"""Pieces → a sketch as a hand might draw it: contours only, wobbly, askew, with a bit left out."""

import numpy as np
from PIL import Image, ImageDraw

from stbir.data.sources.synthetic.catalogue import Shape
from stbir.data.sources.synthetic.geometry import CENTRE, TILT, Array, Piece, Tube, Turned, pieces

_INK = 24
_SUPER = 2
# Share of the strokes that lack a piece, and the most that may be missing of one.
_GAPS, _LONGEST_GAP = 0.2, 0.25


def draw_sketch(shape: Shape, rng: np.random.Generator, size: int = 256) -> Image.Image:
    """A sketch of a shape, grey, black on white. No colour, material or pattern goes into it."""
    canvas = Image.new("L", (size * _SUPER, size * _SUPER), 255)
    draw = ImageDraw.Draw(canvas)
    askew = Askew(rng)
    width = round(size * _SUPER * rng.uniform(0.007, 0.011))
    for piece in pieces(shape):
        outline, strokes = _contours(piece)
        draw.polygon(_pixels(askew(outline), canvas), fill=255)
        for stroke in strokes:
            for part in _by_hand(askew(stroke), rng):
                draw.line(_pixels(part, canvas), fill=_INK, width=width, joint="curve")
    return canvas.reduce(_SUPER)


class Askew:
    """One hand's error: a slight affine map and a slow swerve, the same for all that it draws."""

    def __init__(self, rng: np.random.Generator) -> None:
        angle, shear = rng.normal(0, 0.035), rng.normal(0, 0.03)
        stretch = np.exp(rng.normal(0, 0.05, 2)) * 0.95
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        self.matrix = turn @ np.array([[stretch[0], shear], [0, stretch[1]]])
        self.shift = rng.normal(0, 0.015, 2)
        self.waves = rng.normal(0, 7, (3, 2))
        self.phases = rng.uniform(0, 2 * np.pi, 3)
        self.sizes = rng.normal(0, 0.006, (3, 2))

    def __call__(self, points: Array) -> Array:
        """Points (n, 2) as this hand would place them."""
        swerve = np.sin(points @ self.waves.T + self.phases) @ self.sizes
        return np.asarray((points - 0.5) @ self.matrix.T + 0.5 + self.shift + swerve)


def _contours(piece: Piece) -> tuple[Array, list[Array]]:
    """The area that a piece hides, and the strokes that show it."""
    return _turned_contours(piece) if isinstance(piece, Turned) else _tube_contours(piece)


def _turned_contours(piece: Turned) -> tuple[Array, list[Array]]:
    right = np.stack([CENTRE + piece.radius, piece.y], 1)
    left = np.stack([CENTRE - piece.radius, piece.y], 1)
    near = _arc(piece, -1, 0, np.pi)
    far = _arc(piece, 0, np.pi, 2 * np.pi)
    rim = _arc(piece, 0, 0, 2 * np.pi)
    outline = np.concatenate([right, near, left[::-1], far])
    return outline, [left, right, near, rim]


def _arc(piece: Turned, end: int, start: float, stop: float) -> Array:
    """Part of the level ellipse at the top (0) or the bottom (-1) of a piece; 0 … pi is its near half."""
    angle = np.linspace(start, stop, 24)
    radius = piece.radius[end]
    return np.stack([CENTRE + radius * np.cos(angle), piece.y[end] + TILT * radius * np.sin(angle)], 1)


def _tube_contours(piece: Tube) -> tuple[Array, list[Array]]:
    along = np.gradient(piece.path, axis=0)
    across = along[:, ::-1] * [-1, 1] / np.linalg.norm(along, axis=1, keepdims=True)
    offset = across * piece.radius[:, None]
    one, other = piece.path + offset, piece.path - offset
    return np.concatenate([one, other[::-1]]), [one, other, np.stack([one[-1], other[-1]])]


def _by_hand(stroke: Array, rng: np.random.Generator) -> list[Array]:
    """A stroke with tremor and a slight miss, now and then with a gap."""
    points = _even(stroke, 0.012)
    tremor = np.cumsum(rng.normal(0, 0.0009, points.shape), 0)
    points = points + tremor - tremor.mean(0) + rng.normal(0, 0.0025, 2)
    if rng.random() > _GAPS or len(points) < 12:
        return [points]
    missing = int(len(points) * rng.uniform(0.08, _LONGEST_GAP))
    start = int(rng.integers(2, len(points) - missing - 1))
    return [points[:start], points[start + missing :]]


def _even(stroke: Array, step: float) -> Array:
    """The same line with points `step` apart."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(stroke, axis=0), axis=1))])
    at = np.linspace(0, length[-1], max(3, int(length[-1] / step)))
    return np.stack([np.interp(at, length, stroke[:, i]) for i in (0, 1)], 1)


def _pixels(points: Array, canvas: Image.Image) -> list[tuple[float, float]]:
    return [(x * canvas.width, y * canvas.height) for x, y in points.tolist()]
