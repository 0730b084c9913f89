"""Draws a sketch of a shape: contours with hand tremor, distortion and gaps."""

import numpy as np
from PIL import Image, ImageDraw

from stbir.data.sources.synthetic.catalogue import Shape
from stbir.data.sources.synthetic.geometry import CENTRE, TILT, Array, Lathe, Tube, build_primitives

_INK = 24
_SUPERSAMPLING = 2
# Probability of a gap in a stroke, and the longest gap as a share of the stroke.
_GAP_PROBABILITY, _MAX_GAP = 0.2, 0.25


def draw_sketch(shape: Shape, rng: np.random.Generator, size: int = 256) -> Image.Image:
    """A grey sketch of a shape, dark on white, independent of colour, material and pattern."""
    canvas = Image.new("L", (size * _SUPERSAMPLING, size * _SUPERSAMPLING), 255)
    draw = ImageDraw.Draw(canvas)
    warp = HandWarp(rng)
    width = round(size * _SUPERSAMPLING * rng.uniform(0.007, 0.011))
    for primitive in build_primitives(shape):
        outline, strokes = _contours(primitive)
        draw.polygon(_pixels(warp(outline), canvas), fill=255)  # hides primitives behind it
        for stroke in strokes:
            for part in _hand_drawn(warp(stroke), rng):
                draw.line(_pixels(part, canvas), fill=_INK, width=width, joint="curve")
    return canvas.reduce(_SUPERSAMPLING)


class HandWarp:
    """The systematic error of one sketch: a slight affine map plus slow waves."""

    def __init__(self, rng: np.random.Generator) -> None:
        angle, shear = rng.normal(0, 0.035), rng.normal(0, 0.03)
        stretch = np.exp(rng.normal(0, 0.05, 2)) * 0.95
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        self.matrix = rotation @ np.array([[stretch[0], shear], [0, stretch[1]]])
        self.shift = rng.normal(0, 0.015, 2)
        self.waves = rng.normal(0, 7, (3, 2))
        self.phases = rng.uniform(0, 2 * np.pi, 3)
        self.amplitudes = rng.normal(0, 0.006, (3, 2))

    def __call__(self, points: Array) -> Array:
        """Warp points (n, 2)."""
        waves = np.sin(points @ self.waves.T + self.phases) @ self.amplitudes
        return np.asarray((points - 0.5) @ self.matrix.T + 0.5 + self.shift + waves)


def _contours(primitive: Lathe | Tube) -> tuple[Array, list[Array]]:
    """The outline of a primitive, and its strokes."""
    return _lathe_contours(primitive) if isinstance(primitive, Lathe) else _tube_contours(primitive)


def _lathe_contours(lathe: Lathe) -> tuple[Array, list[Array]]:
    right = np.stack([CENTRE + lathe.radius, lathe.y], 1)
    left = np.stack([CENTRE - lathe.radius, lathe.y], 1)
    near = _arc(lathe, -1, 0, np.pi)
    far = _arc(lathe, 0, np.pi, 2 * np.pi)
    rim = _arc(lathe, 0, 0, 2 * np.pi)
    outline = np.concatenate([right, near, left[::-1], far])
    return outline, [left, right, near, rim]


def _arc(lathe: Lathe, end: int, start: float, stop: float) -> Array:
    """Part of the ellipse at the top (0) or the bottom (-1) of a lathe; 0 … pi is its near half."""
    angle = np.linspace(start, stop, 24)
    radius = lathe.radius[end]
    return np.stack([CENTRE + radius * np.cos(angle), lathe.y[end] + TILT * radius * np.sin(angle)], 1)


def _tube_contours(tube: Tube) -> tuple[Array, list[Array]]:
    tangent = np.gradient(tube.path, axis=0)
    normal = tangent[:, ::-1] * [-1, 1] / np.linalg.norm(tangent, axis=1, keepdims=True)
    offset = normal * tube.radius[:, None]
    left, right = tube.path + offset, tube.path - offset
    return np.concatenate([left, right[::-1]]), [left, right, np.stack([left[-1], right[-1]])]


def _hand_drawn(stroke: Array, rng: np.random.Generator) -> list[Array]:
    """A stroke with tremor and a small offset, in two parts if it has a gap."""
    points = _resampled(stroke, 0.012)
    tremor = np.cumsum(rng.normal(0, 0.0009, points.shape), 0)
    points = points + tremor - tremor.mean(0) + rng.normal(0, 0.0025, 2)
    if rng.random() > _GAP_PROBABILITY or len(points) < 12:
        return [points]
    gap = int(len(points) * rng.uniform(0.08, _MAX_GAP))
    start = int(rng.integers(2, len(points) - gap - 1))
    return [points[:start], points[start + gap :]]


def _resampled(stroke: Array, spacing: float) -> Array:
    """The stroke with points at equal `spacing`."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(stroke, axis=0), axis=1))])
    positions = np.linspace(0, length[-1], max(3, int(length[-1] / spacing)))
    return np.stack([np.interp(positions, length, stroke[:, i]) for i in (0, 1)], 1)


def _pixels(points: Array, canvas: Image.Image) -> list[tuple[float, float]]:
    return [(x * canvas.width, y * canvas.height) for x, y in points.tolist()]
