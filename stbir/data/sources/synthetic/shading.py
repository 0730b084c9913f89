"""How light falls on a surface of a material and a pattern."""

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
_LIGHT = (-0.481, -0.551, 0.682)
# Half way between the light and the eye, both far away.
_HALF = (-0.262, -0.300, 0.917)


class Surface(NamedTuple):
    """What the camera sees of a piece; all maps are (H, W). u runs round the piece, v down it."""

    mask: Map
    nx: Map
    ny: Map
    nz: Map
    u: Map
    v: Map


def shade(picture: Map, surface: Surface, material: str, colour: Map) -> None:
    """Paint a surface into `picture` (H, W, 3), in place. `colour`: (3,) or (H, W, 3)."""
    _MATERIALS[material](picture, surface, colour)


def pattern(name: str, u: Map, v: Map) -> Map:
    """How much of the accent's colour shows at each place of a surface, 0 … 1."""
    return _PATTERNS[name](u, v)


def colour(name: str) -> Map:
    """A colour by its name, (3,), 0 … 1."""
    return np.asarray(_RGB[name], np.float32) / np.float32(255)


def blend(picture: Map, alpha: Map, colour: Map) -> None:
    """Lay a colour over `picture` (H, W, 3), in place, as far as `alpha` (H, W) says."""
    picture += alpha[..., None] * (colour - picture)


def step(value: Map, width: float) -> Map:
    """0 below, 1 above zero, with a ramp of the given width between."""
    return np.asarray(np.clip(value / width + 0.5, 0, 1))


def _diffuse(s: Surface) -> Map:
    return np.asarray(np.clip(s.nx * _LIGHT[0] + s.ny * _LIGHT[1] + s.nz * _LIGHT[2], 0, 1))


def _gloss(s: Surface, sharp: float) -> Map:
    return np.asarray(np.clip(s.nx * _HALF[0] + s.ny * _HALF[1] + s.nz * _HALF[2], 0, 1) ** sharp)


def _ceramic(picture: Map, s: Surface, colour: Map) -> None:
    light = (0.42 + 0.68 * _diffuse(s))[..., None]
    blend(picture, s.mask, colour * light + 0.75 * _gloss(s, 60)[..., None])


def _wooden(picture: Map, s: Surface, colour: Map) -> None:
    wave = 26 * s.u + 3 * np.sin(9 * s.v + 6 * s.u) + 1.2 * np.sin(31 * s.v)
    grain = 0.5 + 0.5 * np.sin(2.4 * wave)
    light = (0.40 + 0.56 * _diffuse(s)) * (0.72 + 0.28 * grain)
    blend(picture, s.mask, colour * light[..., None])


def _metal(picture: Map, s: Surface, colour: Map) -> None:
    room = 0.5 + 0.5 * np.sin(7.5 * s.nx + 2.0 * s.ny + 0.6)
    light = (0.22 + 1.0 * room**1.5)[..., None]
    blend(picture, s.mask, colour * light + (0.55 * _gloss(s, 14) * room + 0.5 * _gloss(s, 160))[..., None])


def _glass(picture: Map, s: Surface, colour: Map) -> None:
    alpha = s.mask * (0.42 + 0.5 * (1 - s.nz) ** 1.5)
    blend(picture, alpha, colour * (0.62 + 0.5 * _diffuse(s))[..., None])
    streak = np.exp(-(((s.nx + 0.62) / 0.07) ** 2)) + 0.5 * np.exp(-(((s.nx - 0.7) / 0.05) ** 2))
    blend(picture, s.mask * np.clip(0.75 * streak + 0.9 * _gloss(s, 120), 0, 1), np.ones(3, np.float32))


_MATERIALS = {"ceramic": _ceramic, "wooden": _wooden, "metal": _metal, "glass": _glass}


def _bands(u: Map, v: Map) -> Map:
    return _soft(0.022 - np.abs(v % 0.085 - 0.0425))


def _dots(u: Map, v: Map) -> Map:
    row = np.floor(v / 0.075)
    du = (u + 0.04 * (row % 2)) % 0.08 - 0.04
    dv = v % 0.075 - 0.0375
    return _soft(0.023 - np.sqrt(du**2 + dv**2))


def _zigzag(u: Map, v: Map) -> Map:
    wave = np.abs(u % 0.09 - 0.045)
    return _soft(0.014 - np.abs((v + wave) % 0.11 - 0.055))


def _diamonds(u: Map, v: Map) -> Map:
    return _soft(0.030 - np.abs(u % 0.1 - 0.05) * 0.8 - np.abs(v % 0.1 - 0.05) * 0.6)


_PATTERNS = {"bands": _bands, "dots": _dots, "zigzag": _zigzag, "diamonds": _diamonds}


def _soft(inside: Map) -> Map:
    return step(inside, 0.005)
