"""Shaders for the materials and patterns of the synthetic photos."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.floating[Any]]

_RGB = {
    "red": (196, 38, 42),
    "orange": (236, 126, 30),
    "yellow": (240, 204, 52),
    "green": (52, 146, 62),
    "teal": (26, 150, 150),
    "blue": (44, 84, 196),
    "purple": (122, 60, 168),
    "pink": (240, 132, 176),
    "brown": (116, 70, 38),
    "grey": (128, 132, 138),
    "white": (250, 250, 246),
    "black": (28, 28, 32),
    "gold": (222, 176, 48),
}
_LIGHT_DIRECTION = (-0.481, -0.551, 0.682)
# Half-way vector between light and viewer (Blinn-Phong), both at infinity.
_HALF_VECTOR = (-0.262, -0.300, 0.917)


class Surface(NamedTuple):
    """A primitive in the image: mask, normals and surface coordinates, all (H, W). u: around, v: down."""

    mask: Map
    nx: Map
    ny: Map
    nz: Map
    u: Map
    v: Map


def shade(image: Map, surface: Surface, material: str, colour: Map) -> None:
    """Paint a surface into `image` (H, W, 3) in place. `colour`: (3,) or (H, W, 3)."""
    _MATERIALS[material](image, surface, colour)


def pattern(name: str, u: Map, v: Map) -> Map:
    """Weight of the accent colour at each point of a surface, 0 … 1."""
    return _PATTERNS[name](u, v)


def colour(name: str) -> Map:
    """RGB (3,) of a colour name, 0 … 1."""
    return np.asarray(_RGB[name], np.float32) / np.float32(255)


def blend(image: Map, alpha: Map, colour: Map) -> None:
    """Alpha-blend a colour onto `image` (H, W, 3) in place. `alpha`: (H, W)."""
    image += alpha[..., None] * (colour - image)


def ramp(value: Map, width: float) -> Map:
    """0 below and 1 above zero, with a linear ramp of the given width between them."""
    return np.asarray(np.clip(value / width + 0.5, 0, 1))


def _cosine(s: Surface, direction: tuple[float, float, float]) -> Map:
    """Cosine between the normals and a direction, at least 0."""
    x, y, z = direction
    return np.asarray(np.clip(s.nx * x + s.ny * y + s.nz * z, 0, 1))


def _specular(s: Surface, exponent: float) -> Map:
    return np.asarray(_cosine(s, _HALF_VECTOR) ** exponent)


def _ceramic(image: Map, s: Surface, colour: Map) -> None:
    light = (0.42 + 0.68 * _cosine(s, _LIGHT_DIRECTION))[..., None]
    blend(image, s.mask, colour * light + 0.75 * _specular(s, 60)[..., None])


def _wooden(image: Map, s: Surface, colour: Map) -> None:
    wave = 26 * s.u + 3 * np.sin(9 * s.v + 6 * s.u) + 1.2 * np.sin(31 * s.v)
    grain = 0.5 + 0.5 * np.sin(2.4 * wave)
    light = (0.40 + 0.56 * _cosine(s, _LIGHT_DIRECTION)) * (0.72 + 0.28 * grain)
    blend(image, s.mask, colour * light[..., None])


def _metal(image: Map, s: Surface, colour: Map) -> None:
    reflection = 0.5 + 0.5 * np.sin(7.5 * s.nx + 2.0 * s.ny + 0.6)
    light = (0.22 + 1.0 * reflection**1.5)[..., None]
    specular = 0.55 * _specular(s, 14) * reflection + 0.5 * _specular(s, 160)
    blend(image, s.mask, colour * light + specular[..., None])


def _glass(image: Map, s: Surface, colour: Map) -> None:
    alpha = s.mask * (0.42 + 0.5 * (1 - s.nz) ** 1.5)
    blend(image, alpha, colour * (0.62 + 0.5 * _cosine(s, _LIGHT_DIRECTION))[..., None])
    streak = np.exp(-(((s.nx + 0.62) / 0.07) ** 2)) + 0.5 * np.exp(-(((s.nx - 0.7) / 0.05) ** 2))
    blend(image, s.mask * np.clip(0.75 * streak + 0.9 * _specular(s, 120), 0, 1), np.ones(3, np.float32))


_MATERIALS = {"ceramic": _ceramic, "wooden": _wooden, "metal": _metal, "glass": _glass}


def _bands(u: Map, v: Map) -> Map:
    return _soft_edge(0.022 - np.abs(v % 0.085 - 0.0425))


def _dots(u: Map, v: Map) -> Map:
    row = np.floor(v / 0.075)
    du = (u + 0.04 * (row % 2)) % 0.08 - 0.04
    dv = v % 0.075 - 0.0375
    return _soft_edge(0.023 - np.sqrt(du**2 + dv**2))


def _zigzag(u: Map, v: Map) -> Map:
    wave = np.abs(u % 0.09 - 0.045)
    return _soft_edge(0.014 - np.abs((v + wave) % 0.11 - 0.055))


def _diamonds(u: Map, v: Map) -> Map:
    return _soft_edge(0.030 - np.abs(u % 0.1 - 0.05) * 0.8 - np.abs(v % 0.1 - 0.05) * 0.6)


_PATTERNS = {"bands": _bands, "dots": _dots, "zigzag": _zigzag, "diamonds": _diamonds}


def _soft_edge(distance: Map) -> Map:
    return ramp(distance, 0.005)
