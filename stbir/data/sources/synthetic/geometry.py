"""A shape as pieces: turned bodies and bent tubes, back to front, seen from a little above.

Units: the picture is 1 x 1, y runs down. Photo and sketch are drawn from the same pieces.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stbir.data.sources.synthetic.catalogue import Shape

Array = NDArray[np.float64]

CENTRE = 0.5
GROUND = 0.88
# Height over width of a level circle as the camera sees it.
TILT = 0.14
_FINE = 48
# What an object may fill of the picture, and how far a small one is enlarged.
_HALF_WIDTH, _HEIGHT, _NEAREST = 0.42, 0.78, 1.6
_FOOT_HEIGHT = {"flat": 0.0, "plinth": 0.05, "pedestal": 0.13, "legs": 0.12}
_BODY_HEIGHT = {"squat": 0.24, "medium": 0.34, "tall": 0.42}
_BODY_RADIUS = {"squat": 0.26, "medium": 0.19, "tall": 0.125}


@dataclass(frozen=True)
class Turned:
    """A body of revolution about x = CENTRE: radius at each y (ascending), open above or closed."""

    radius: Array
    y: Array
    open: bool = False
    patterned: bool = False


@dataclass(frozen=True)
class Tube:
    """A round rod along a path (n, 2) of (x, y), `radius` (n,) thick."""

    path: Array
    radius: Array


Piece = Turned | Tube


def pieces(shape: Shape) -> list[Piece]:
    """The pieces of a shape in the order in which they are painted."""
    high, wide = 1 + 0.06 * shape.jitter[0], 1 + 0.06 * shape.jitter[1]
    bottom = GROUND - _FOOT_HEIGHT[shape.foot]
    top = bottom - high * _BODY_HEIGHT[shape.aspect]
    body = _body(shape, top, bottom, wide * _BODY_RADIUS[shape.aspect])
    crown = _TOPS[shape.category](shape.top, body)
    return _fitted([*_sides(shape.side, body), *_foot(shape.foot, body), body, *crown])


def _fitted(parts: list[Piece]) -> list[Piece]:
    """The same pieces, larger or smaller, so that they fill the picture; axis and ground stay."""
    half = max(abs(box[side] - CENTRE) for part in parts for box in [extent(part)] for side in (0, 2))
    top = min(extent(part)[1] for part in parts)
    scale = min(_HALF_WIDTH / half, _HEIGHT / (GROUND - top), _NEAREST)
    return [_scaled(part, scale) for part in parts]


def _scaled(part: Piece, scale: float) -> Piece:
    if isinstance(part, Tube):
        fixed = np.array([CENTRE, GROUND])
        return Tube(fixed + scale * (part.path - fixed), scale * part.radius)
    return replace(part, radius=scale * part.radius, y=GROUND + scale * (part.y - GROUND))


def extent(part: Piece) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a piece as the camera sees it."""
    if isinstance(part, Tube):
        (left, top), (right, bottom) = part.path.min(0), part.path.max(0)
        thick = part.radius.max()
        return float(left - thick), float(top - thick), float(right + thick), float(bottom + thick)
    wide = float(part.radius.max())
    tip = TILT * wide
    return CENTRE - wide, float(part.y[0]) - tip, CENTRE + wide, float(part.y[-1]) + tip


def _turned(points: list[tuple[float, float]], *, smooth: bool = True, open_: bool = False) -> Turned:
    """From (radius, y) points, top first, joined by half waves or by straight lines."""
    radius, y = np.array(points).T
    fine = np.linspace(y[0], y[-1], _FINE)
    at = np.interp(fine, y, np.arange(len(y)))
    if smooth:
        whole = np.floor(at)
        at = whole + (at - whole) ** 2 * (3 - 2 * (at - whole))
    return Turned(np.interp(at, np.arange(len(y)), radius), fine, open_)


def _body(shape: Shape, top: float, bottom: float, radius: float) -> Turned:
    t = np.linspace(0, 1, _FINE)
    profile = {
        "globe": np.sqrt(1 - 0.86 * (2 * t - 1) ** 2),
        "cylinder": 0.82 - 0.12 * np.abs(2 * t - 1) ** 8,
        "cone": 0.38 + 0.62 * t,
        "tulip": 1.0 - 0.62 * t**1.3,
        "gourd": 0.70 + 0.25 * np.cos(4 * np.pi * (t - 0.24)) * (0.8 + 0.2 * t),
    }[shape.body]
    return Turned(radius * profile, top + t * (bottom - top), shape.category == "vase", patterned=True)


def _foot(foot: str, body: Turned) -> list[Piece]:
    base, y = body.radius[-1], body.y[-1]
    if foot == "flat":
        return []
    if foot == "legs":
        spread = max(base, 0.09)
        return [_leg(-spread, y), _leg(spread, y), _leg(0.0, y)]
    if foot == "plinth":
        wide = max(1.25 * base, 0.13)
        return [_turned([(wide, y), (wide, GROUND)], smooth=False)]
    wide = max(1.0 * base, 0.12)
    return [_turned([(0.045, y), (0.035, (y + GROUND) / 2), (wide, GROUND - 0.012), (wide, GROUND)])]


def _leg(x: float, y: float) -> Tube:
    drop = 0.02 if x == 0 else 0.0
    path = np.array([(CENTRE + 0.75 * x, y - 0.02), (CENTRE + 1.15 * x, GROUND + drop)])
    return Tube(path, np.array([0.02, 0.014]))


def _sides(side: str, body: Turned) -> list[Tube]:
    right = _loop(body, 1)
    return {
        "bare": [],
        "handle": [right],
        "handles": [_loop(body, -1), right],
        "spout": [_spout(body), right],
    }[side]


def _loop(body: Turned, way: int) -> Tube:
    (r0, y0), (r1, y1) = _point(body, 0.14), _point(body, 0.74)
    out = max(r0, r1) + 0.14
    path = _bezier((0.9 * r0, y0), (out, y0 - 0.05), (out, y1 + 0.02), (0.9 * r1, y1))
    return Tube(_about_centre(path, way), np.full(len(path), 0.017))


def _spout(body: Turned) -> Tube:
    r0, y0 = _point(body, 0.62)
    top = body.y[0]
    path = _bezier((0.8 * r0, y0), (r0 + 0.09, y0), (r0 + 0.08, top), (r0 + 0.16, top - 0.02))
    return Tube(_about_centre(path, -1), np.linspace(0.038, 0.018, len(path)))


def _about_centre(path: Array, way: int) -> Array:
    """(distance from the axis, y) → (x, y), to the right (1) or to the left (-1)."""
    return np.asarray(path * [way, 1] + [CENTRE, 0.0])


def _point(body: Turned, share: float) -> tuple[float, float]:
    i = round(share * (len(body.y) - 1))
    return float(body.radius[i]), float(body.y[i])


def _bezier(*control: tuple[float, float]) -> Array:
    a, b, c, d = np.array(control)
    t = np.linspace(0, 1, 20)[:, None]
    return np.asarray((1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d)


def _neck(top: int, body: Turned) -> list[Turned]:
    r, y = float(body.radius[0]), float(body.y[0])
    slim = 0.35 * r + 0.025
    points = [
        [(1.18 * r, y - 0.035), (r, y)],
        [(1.25 * slim, y - 0.21), (slim, y - 0.17), (slim, y - 0.04), (0.8 * r, y)],
        [(0.23, y - 0.13), (0.8 * slim + 0.02, y - 0.02), (0.8 * r, y)],
        [(slim, y - 0.19), (slim, y - 0.14), (slim + 0.06, y - 0.08), (slim, y - 0.03), (0.8 * r, y)],
    ][top]
    return [_turned(points, open_=True)]


def _shade(top: int, body: Turned) -> list[Turned]:
    y = float(body.y[0])
    low, high = y - 0.05, y - 0.23
    stem = _turned([(0.022, low - 0.03), (0.022, y)], smooth=False)
    shade = [
        _turned([(0.06, high), (0.21, low)], smooth=False, open_=True),
        _turned([(0.17, high), (0.17, low)], smooth=False, open_=True),
        _dome(0.21, high, low),
        _turned([(0.11, high), (0.12, (high + low) / 2), (0.24, low)], open_=True),
    ][top]
    return [stem, shade]


def _lid(top: int, body: Turned) -> list[Turned]:
    r, y = 1.08 * float(body.radius[0]) + 0.01, float(body.y[0])
    disc = _turned([(r, y - 0.025), (r, y)], smooth=False)
    return [
        [disc, _dome(0.03, y - 0.075, y - 0.025)],
        [_dome(r, y - 0.12, y)],
        [disc, _turned([(0.004, y - 0.22), (0.3 * r, y - 0.09), (0.8 * r, y - 0.025)])],
        [disc, _turned([(0.6 * r, y - 0.085), (0.6 * r, y - 0.025)], smooth=False), _ball(0.06, y - 0.20)],
    ][top]


def _dome(radius: float, top: float, bottom: float) -> Turned:
    t = np.linspace(0, 1, _FINE) ** 2
    return Turned(radius * np.sqrt(1 - (1 - t) ** 2) + 0.004, top + t * (bottom - top))


def _ball(radius: float, top: float) -> Turned:
    t = (1 - np.cos(np.linspace(0, np.pi, _FINE))) / 2
    return Turned(radius * np.sqrt(1 - (2 * t - 1) ** 2) + 0.004, top + 2 * radius * t)


_TOPS = {"vase": _neck, "lamp": _shade, "jar": _lid}
