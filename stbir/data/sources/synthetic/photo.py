"""Renders the photo of an item: each primitive becomes a surface map, and one shader paints them all.

Edges are anti-aliased by their distance in pixels, so no supersampling is needed.
"""

import numpy as np
from PIL import Image

from stbir.data.sources.synthetic.catalogue import Attributes, Item
from stbir.data.sources.synthetic.geometry import (
    CENTRE,
    GROUND,
    TILT,
    Array,
    Lathe,
    Primitive,
    Tube,
    bounding_box,
    build_primitives,
)
from stbir.data.sources.synthetic.shading import Map, Surface, blend, colour, pattern, ramp, shade

Box = tuple[slice, slice]


def draw_photo(item: Item, rng: np.random.Generator, size: int = 256) -> Image.Image:
    """The RGB photo of an item. `rng` varies position, distance and background, which no text describes."""
    x, y = _pixel_grid(size, rng)
    image = _background(x, y, rng)
    primitives = build_primitives(item.shape)
    _draw_shadow(image, x, y, primitives, strength=0.18 if item.attributes.material == "glass" else 0.34)
    for primitive in primitives:
        box = _pixel_box(primitive, x, y, size)
        if isinstance(primitive, Lathe):
            _draw_lathe(image[box], x[box], y[box], primitive, item.attributes, size)
        else:
            surface = _tube_surface(primitive, x[box], y[box], size)
            shade(image[box], surface, item.attributes.material, colour(item.attributes.colour))
    return Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))


def _pixel_grid(size: int, rng: np.random.Generator) -> tuple[Map, Map]:
    """Object coordinates of the pixel centres, with random scale and shift."""
    axis = (np.arange(size) + 0.5) / size - 0.5
    axis *= rng.uniform(0.97, 1.08)
    dx, dy = rng.uniform(-0.025, 0.025, 2)
    x, y = np.meshgrid(axis + 0.5 + dx, axis + 0.5 + dy)
    return x.astype(np.float32), y.astype(np.float32)


def _pixel_box(primitive: Primitive, x: Map, y: Map, size: int) -> Box:
    """The pixels that a primitive can cover."""
    left, top, right, bottom = bounding_box(primitive)
    edge = 2 / size
    columns = np.searchsorted(x[0], (left - edge, right + edge))
    rows = np.searchsorted(y[:, 0], (top - edge, bottom + edge))
    return slice(*rows), slice(*columns)


def _background(x: Map, y: Map, rng: np.random.Generator) -> Map:
    """A pale studio wall and floor."""
    tone = (0.93 + 0.05 * rng.random() + 0.02 * rng.uniform(-1, 1, 3)).astype(np.float32)
    across, down = np.exp(-((x[:1] - 0.35) ** 2) / 0.15), np.exp(-((y[:, :1] - 0.35) ** 2) / 0.15)
    light = 0.05 * across * down - 0.06 * ramp(y - 0.72, 0.25)
    return np.asarray(tone + light[..., None])


def _draw_shadow(image: Map, x: Map, y: Map, primitives: list[Primitive], strength: float) -> None:
    radii = [float(p.radius[-1]) for p in primitives if isinstance(p, Lathe) and p.y[-1] > GROUND - 0.2]
    radius = 1.25 * max(radii, default=0.15) + 0.03
    across = np.exp(-(((x[:1] - CENTRE - 0.05) / radius) ** 2))
    down = np.exp(-(((y[:, :1] - GROUND - 0.012) / (radius * TILT * 1.5)) ** 2))
    image *= (1 - strength * across * down)[..., None]


def _draw_lathe(image: Map, x: Map, y: Map, lathe: Lathe, attributes: Attributes, size: int) -> None:
    _draw_top(image, x, y, lathe, attributes, size)
    surface = _lathe_surface(lathe, x, y, size)
    body = colour(attributes.colour)
    if lathe.patterned:
        accent = pattern(attributes.pattern, surface.u, surface.v)[..., None]
        body = body * (1 - accent) + colour(attributes.accent) * accent
    shade(image, surface, attributes.material, body)


def _draw_top(image: Map, x: Map, y: Map, lathe: Lathe, attributes: Attributes, size: int) -> None:
    """Draw the horizontal circle at the top: a lid, or the inside of an open body."""
    radius, top = float(lathe.radius[0]), float(lathe.y[0])
    down = (y - top) / (radius * TILT)
    distance = np.sqrt(((x - CENTRE) / radius) ** 2 + down**2)
    mask = _coverage((1 - distance) * radius * TILT, size) * (0.5 if attributes.material == "glass" else 1)
    light = 0.30 + 0.22 * np.clip(down, -1, 1) if lathe.open else 0.98 - 0.08 * np.clip(down, -1, 1)
    blend(image, mask, light[..., None] * colour(attributes.colour))


def _lathe_surface(lathe: Lathe, x: Map, y: Map, size: int) -> Surface:
    """Horizontal circles appear as ellipses: a point appears lower by TILT x its depth."""
    radius = np.maximum(_interpolate_rows(y, lathe.y, lathe.radius), 1e-3)
    slope = _interpolate_rows(y, lathe.y, np.gradient(lathe.radius, lathe.y))
    u = np.clip((x - CENTRE) / radius, -1, 1)
    depth = np.sqrt(1 - u**2)
    level = y - TILT * radius * depth
    top, bottom = float(lathe.y[0]), float(lathe.y[-1])
    norm = np.sqrt(1 + slope**2)
    side = _coverage((radius - np.abs(x - CENTRE)) / norm, size)
    mask = side * _coverage(level - top, size) * _coverage(bottom - level, size)
    around = np.arcsin(u) * float(lathe.radius.mean())
    return Surface(mask, u / norm, -slope / norm + 0 * u, depth / norm, around, level - top)


def _interpolate_rows(y: Map, heights: Array, values: Array) -> Map:
    """`values` at `heights`, interpolated to the height of each pixel row: (H, 1)."""
    return np.interp(y[:, :1], heights, values).astype(np.float32)


def _tube_surface(tube: Tube, x: Map, y: Map, size: int) -> Surface:
    """The nearest point of the path gives mask, normal and surface coordinates."""
    path, radius = _resampled(tube)
    dx, dy = x[..., None] - path[:, 0], y[..., None] - path[:, 1]  # (H, W, points)
    gap = np.sqrt(dx**2 + dy**2) - radius
    nearest = gap.argmin(-1)[..., None]
    radius = radius[nearest[..., 0]]
    nx, ny = (np.clip(np.take_along_axis(d, nearest, -1)[..., 0] / radius, -1, 1) for d in (dx, dy))
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0, 1))
    mask = _coverage(-np.take_along_axis(gap, nearest, -1)[..., 0], size)
    return Surface(mask, nx, ny, nz, nx * radius, nearest[..., 0].astype(np.float32) / len(path))


def _resampled(tube: Tube) -> tuple[Map, Map]:
    """Path (40, 2) and radius (40,), linearly interpolated."""
    knots = np.arange(len(tube.path))
    positions = np.linspace(0, knots[-1], 40)
    path = np.stack([np.interp(positions, knots, tube.path[:, i]) for i in (0, 1)], 1)
    return path.astype(np.float32), np.interp(positions, knots, tube.radius).astype(np.float32)


def _coverage(distance: Map, size: int) -> Map:
    """Covered share of each pixel, from the distance of its centre inside the edge."""
    return np.asarray(np.clip(distance * size + 0.5, 0, 1))
