"""Pieces and words → a photo. Every piece gives mask, normals and surface coordinates, one shader paints all.

Edges are smoothed by their distance in pixels, so nothing is drawn larger and shrunk.
"""

import numpy as np
from PIL import Image

from stbir.data.sources.synthetic.catalogue import Item, Words
from stbir.data.sources.synthetic.geometry import (
    CENTRE,
    GROUND,
    TILT,
    Array,
    Piece,
    Tube,
    Turned,
    extent,
    pieces,
)
from stbir.data.sources.synthetic.shading import Map, Surface, blend, colour, pattern, shade, step

Box = tuple[slice, slice]


def draw_photo(item: Item, rng: np.random.Generator, size: int = 256) -> Image.Image:
    """The photo of an item, RGB. `rng` decides place, distance and ground: nothing one would say."""
    x, y = _grid(size, rng)
    picture = _ground(x, y, rng)
    parts = pieces(item.shape)
    _shadow(picture, x, y, parts, strength=0.18 if item.words.material == "glass" else 0.34)
    for part in parts:
        box = _box(part, x, y, size)
        if isinstance(part, Turned):
            _paint_turned(picture[box], x[box], y[box], part, item.words, size)
        else:
            _paint_tube(picture[box], x[box], y[box], part, item.words, size)
    return Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))


def _grid(size: int, rng: np.random.Generator) -> tuple[Map, Map]:
    """Coordinates of the pixels' centres in the object's frame: a little nearer, farther, aside."""
    axis = (np.arange(size) + 0.5) / size - 0.5
    axis *= rng.uniform(0.97, 1.08)
    dx, dy = rng.uniform(-0.025, 0.025, 2)
    x, y = np.meshgrid(axis + 0.5 + dx, axis + 0.5 + dy)
    return x.astype(np.float32), y.astype(np.float32)


def _box(part: Piece, x: Map, y: Map, size: int) -> Box:
    """The pixels that a piece may touch."""
    left, top, right, bottom = extent(part)
    edge = 2 / size
    columns = np.searchsorted(x[0], (left - edge, right + edge))
    rows = np.searchsorted(y[:, 0], (top - edge, bottom + edge))
    return slice(*rows), slice(*columns)


def _ground(x: Map, y: Map, rng: np.random.Generator) -> Map:
    """A pale studio wall that turns into its floor."""
    tone = (0.93 + 0.05 * rng.random() + 0.02 * rng.uniform(-1, 1, 3)).astype(np.float32)
    across, down = np.exp(-((x[:1] - 0.35) ** 2) / 0.15), np.exp(-((y[:, :1] - 0.35) ** 2) / 0.15)
    light = 0.05 * across * down - 0.06 * step(y - 0.72, 0.25)
    return np.asarray(tone + light[..., None])


def _shadow(picture: Map, x: Map, y: Map, parts: list[Piece], strength: float) -> None:
    widths = [float(p.radius[-1]) for p in parts if isinstance(p, Turned) and p.y[-1] > GROUND - 0.2]
    wide = 1.25 * max(widths, default=0.15) + 0.03
    across = np.exp(-(((x[:1] - CENTRE - 0.05) / wide) ** 2))
    down = np.exp(-(((y[:, :1] - GROUND - 0.012) / (wide * TILT * 1.5)) ** 2))
    picture *= (1 - strength * across * down)[..., None]


def _paint_turned(picture: Map, x: Map, y: Map, part: Turned, words: Words, size: int) -> None:
    _paint_top(picture, x, y, part, words, size)
    surface = _turned(part, x, y, size)
    body = colour(words.colour)
    if part.patterned:
        accent = pattern(words.pattern, surface.u, surface.v)[..., None]
        body = body * (1 - accent) + colour(words.accent) * accent
    shade(picture, surface, words.material, body)


def _paint_top(picture: Map, x: Map, y: Map, part: Turned, words: Words, size: int) -> None:
    """The level circle on top: a lid, or what one sees inside over the near rim."""
    radius, top = float(part.radius[0]), float(part.y[0])
    down = (y - top) / (radius * TILT)
    far = np.sqrt(((x - CENTRE) / radius) ** 2 + down**2)
    mask = _cover((1 - far) * radius * TILT, size) * (0.5 if words.material == "glass" else 1)
    light = 0.30 + 0.22 * np.clip(down, -1, 1) if part.open else 0.98 - 0.08 * np.clip(down, -1, 1)
    blend(picture, mask, light[..., None] * colour(words.colour))


def _paint_tube(picture: Map, x: Map, y: Map, part: Tube, words: Words, size: int) -> None:
    shade(picture, _tube(part, x, y, size), words.material, colour(words.colour))


def _turned(part: Turned, x: Map, y: Map, size: int) -> Surface:
    """Level circles show as ellipses: a point in front lies lower by TILT x its depth."""
    radius = np.maximum(_along(y, part.y, part.radius), 1e-3)
    slope = _along(y, part.y, np.gradient(part.radius, part.y))
    u = np.clip((x - CENTRE) / radius, -1, 1)
    depth = np.sqrt(1 - u**2)
    level = y - TILT * radius * depth
    top, bottom = float(part.y[0]), float(part.y[-1])
    norm = np.sqrt(1 + slope**2)
    side = _cover((radius - np.abs(x - CENTRE)) / norm, size)
    mask = side * _cover(level - top, size) * _cover(bottom - level, size)
    around = np.arcsin(u) * float(part.radius.mean())
    return Surface(mask, u / norm, -slope / norm + 0 * u, depth / norm, around, level - top)


def _along(y: Map, at: Array, value: Array) -> Map:
    """`value`, known at the heights `at`, for every row: (H, 1)."""
    return np.interp(y[:, :1], at, value).astype(np.float32)


def _tube(part: Tube, x: Map, y: Map, size: int) -> Surface:
    """The nearest point of the path gives mask, normal and place."""
    path, radius = _dense(part)
    dx, dy = x[..., None] - path[:, 0], y[..., None] - path[:, 1]  # (H, W, points)
    gap = np.sqrt(dx**2 + dy**2) - radius
    near = gap.argmin(-1)[..., None]
    thick = radius[near[..., 0]]
    nx, ny = (np.clip(np.take_along_axis(d, near, -1)[..., 0] / thick, -1, 1) for d in (dx, dy))
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0, 1))
    mask = _cover(-np.take_along_axis(gap, near, -1)[..., 0], size)
    return Surface(mask, nx, ny, nz, nx * thick, near[..., 0].astype(np.float32) / len(path))


def _dense(tube: Tube) -> tuple[Map, Map]:
    knots = np.arange(len(tube.path))
    at = np.linspace(0, knots[-1], 40)
    path = np.stack([np.interp(at, knots, tube.path[:, i]) for i in (0, 1)], 1)
    return path.astype(np.float32), np.interp(at, knots, tube.radius).astype(np.float32)


def _cover(inside: Map, size: int) -> Map:
    """Share of a pixel that is covered, from the distance inside the edge."""
    return np.asarray(np.clip(inside * size + 0.5, 0, 1))
