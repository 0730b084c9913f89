"""The geometry of a shape: surfaces of revolution and tubes, back to front, seen slightly from above.

The image is 1 x 1 and y points down. Photo and sketch are drawn from the same primitives.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stbir.data.sources.synthetic.catalogue import Shape

Array = NDArray[np.float64]

CENTRE = 0.5
GROUND = 0.88
# Height over width of a horizontal circle in the image.
TILT = 0.14
_NUM_PROFILE_POINTS = 48
# Maximum size of an object in the image, and maximum enlargement of a small one.
_MAX_HALF_WIDTH, _MAX_HEIGHT, _MAX_SCALE = 0.42, 0.78, 1.6
_FOOT_HEIGHT = {"flat": 0.0, "plinth": 0.05, "pedestal": 0.13, "legs": 0.12}
_BODY_HEIGHT = {"squat": 0.24, "medium": 0.34, "tall": 0.42}
_BODY_RADIUS = {"squat": 0.26, "medium": 0.19, "tall": 0.125}


@dataclass(frozen=True)
class Lathe:
    """A surface of revolution about x = CENTRE: radius at each y (ascending), with an open or closed top."""

    radius: Array
    y: Array
    open: bool = False
    patterned: bool = False


@dataclass(frozen=True)
class Tube:
    """A round tube along a path (n, 2) of (x, y) with `radius` (n,)."""

    path: Array
    radius: Array


Primitive = Lathe | Tube


def build_primitives(shape: Shape) -> list[Primitive]:
    """The primitives of a shape in drawing order."""
    height, width = 1 + 0.06 * shape.jitter[0], 1 + 0.06 * shape.jitter[1]
    bottom = GROUND - _FOOT_HEIGHT[shape.foot]
    top = bottom - height * _BODY_HEIGHT[shape.aspect]
    body = _body(shape, top, bottom, width * _BODY_RADIUS[shape.aspect])
    top_primitives = _TOPS[shape.category](shape.top, body)
    return _fit_to_image([*_sides(shape.side, body), *_foot(shape.foot, body), body, *top_primitives])


def _fit_to_image(primitives: list[Primitive]) -> list[Primitive]:
    """Scale all primitives to fill the image. The axis and the ground stay."""
    boxes = [bounding_box(primitive) for primitive in primitives]
    half_width = max(max(abs(left - CENTRE), abs(right - CENTRE)) for left, _, right, _ in boxes)
    top = min(box[1] for box in boxes)
    scale = min(_MAX_HALF_WIDTH / half_width, _MAX_HEIGHT / (GROUND - top), _MAX_SCALE)
    return [_scale(primitive, scale) for primitive in primitives]


def _scale(primitive: Primitive, scale: float) -> Primitive:
    if isinstance(primitive, Tube):
        origin = np.array([CENTRE, GROUND])
        return Tube(origin + scale * (primitive.path - origin), scale * primitive.radius)
    return replace(primitive, radius=scale * primitive.radius, y=GROUND + scale * (primitive.y - GROUND))


def bounding_box(primitive: Primitive) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a primitive in the image."""
    if isinstance(primitive, Tube):
        (left, top), (right, bottom) = primitive.path.min(0), primitive.path.max(0)
        margin = primitive.radius.max()
        return float(left - margin), float(top - margin), float(right + margin), float(bottom + margin)
    radius = float(primitive.radius.max())
    margin = TILT * radius
    return CENTRE - radius, float(primitive.y[0]) - margin, CENTRE + radius, float(primitive.y[-1]) + margin


def _lathe(points: list[tuple[float, float]], *, smooth: bool = True, open_: bool = False) -> Lathe:
    """A profile through (radius, y) points, top first, with smoothstep or linear interpolation."""
    radius, y = np.array(points).T
    profile_y = np.linspace(y[0], y[-1], _NUM_PROFILE_POINTS)
    position = np.interp(profile_y, y, np.arange(len(y)))
    if smooth:
        index = np.floor(position)
        position = index + (position - index) ** 2 * (3 - 2 * (position - index))
    return Lathe(np.interp(position, np.arange(len(y)), radius), profile_y, open_)


def _body(shape: Shape, top: float, bottom: float, radius: float) -> Lathe:
    t = np.linspace(0, 1, _NUM_PROFILE_POINTS)
    profile = {
        "globe": np.sqrt(1 - 0.86 * (2 * t - 1) ** 2),
        "cylinder": 0.82 - 0.12 * np.abs(2 * t - 1) ** 8,
        "cone": 0.38 + 0.62 * t,
        "tulip": 1.0 - 0.62 * t**1.3,
        "gourd": 0.70 + 0.25 * np.cos(4 * np.pi * (t - 0.24)) * (0.8 + 0.2 * t),
    }[shape.body]
    return Lathe(radius * profile, top + t * (bottom - top), shape.category == "vase", patterned=True)


def _foot(foot: str, body: Lathe) -> list[Primitive]:
    base, y = body.radius[-1], body.y[-1]
    if foot == "flat":
        return []
    if foot == "legs":
        spread = max(base, 0.09)
        return [_leg(-spread, y), _leg(spread, y), _leg(0.0, y)]
    if foot == "plinth":
        radius = max(1.25 * base, 0.13)
        return [_lathe([(radius, y), (radius, GROUND)], smooth=False)]
    radius = max(1.0 * base, 0.12)
    return [_lathe([(0.045, y), (0.035, (y + GROUND) / 2), (radius, GROUND - 0.012), (radius, GROUND)])]


def _leg(x: float, y: float) -> Tube:
    drop = 0.02 if x == 0 else 0.0
    path = np.array([(CENTRE + 0.75 * x, y - 0.02), (CENTRE + 1.15 * x, GROUND + drop)])
    return Tube(path, np.array([0.02, 0.014]))


def _sides(side: str, body: Lathe) -> list[Tube]:
    right = _handle(body, 1)
    return {
        "none": [],
        "handle": [right],
        "handles": [_handle(body, -1), right],
        "spout": [_spout(body), right],
    }[side]


def _handle(body: Lathe, direction: int) -> Tube:
    (r0, y0), (r1, y1) = _profile_point(body, 0.14), _profile_point(body, 0.74)
    out = max(r0, r1) + 0.14
    path = _bezier((0.9 * r0, y0), (out, y0 - 0.05), (out, y1 + 0.02), (0.9 * r1, y1))
    return Tube(_to_image(path, direction), np.full(len(path), 0.017))


def _spout(body: Lathe) -> Tube:
    r0, y0 = _profile_point(body, 0.62)
    top = body.y[0]
    path = _bezier((0.8 * r0, y0), (r0 + 0.09, y0), (r0 + 0.08, top), (r0 + 0.16, top - 0.02))
    return Tube(_to_image(path, -1), np.linspace(0.038, 0.018, len(path)))


def _to_image(path: Array, direction: int) -> Array:
    """(distance from the axis, y) → (x, y), to the right (1) or to the left (-1)."""
    return np.asarray(path * [direction, 1] + [CENTRE, 0.0])


def _profile_point(body: Lathe, ratio: float) -> tuple[float, float]:
    i = round(ratio * (len(body.y) - 1))
    return float(body.radius[i]), float(body.y[i])


def _bezier(*control: tuple[float, float]) -> Array:
    a, b, c, d = np.array(control)
    t = np.linspace(0, 1, 20)[:, None]
    return np.asarray((1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d)


def _neck(top: int, body: Lathe) -> list[Lathe]:
    r, y = float(body.radius[0]), float(body.y[0])
    narrow = 0.35 * r + 0.025
    points = [
        [(1.18 * r, y - 0.035), (r, y)],
        [(1.25 * narrow, y - 0.21), (narrow, y - 0.17), (narrow, y - 0.04), (0.8 * r, y)],
        [(0.23, y - 0.13), (0.8 * narrow + 0.02, y - 0.02), (0.8 * r, y)],
        [(narrow, y - 0.19), (narrow, y - 0.14), (narrow + 0.06, y - 0.08), (narrow, y - 0.03), (0.8 * r, y)],
    ][top]
    return [_lathe(points, open_=True)]


def _lampshade(top: int, body: Lathe) -> list[Lathe]:
    y = float(body.y[0])
    low, high = y - 0.05, y - 0.23
    stem = _lathe([(0.022, low - 0.03), (0.022, y)], smooth=False)
    shade = [
        _lathe([(0.06, high), (0.21, low)], smooth=False, open_=True),
        _lathe([(0.17, high), (0.17, low)], smooth=False, open_=True),
        _dome(0.21, high, low),
        _lathe([(0.11, high), (0.12, (high + low) / 2), (0.24, low)], open_=True),
    ][top]
    return [stem, shade]


def _lid(top: int, body: Lathe) -> list[Lathe]:
    r, y = 1.08 * float(body.radius[0]) + 0.01, float(body.y[0])
    disc = _lathe([(r, y - 0.025), (r, y)], smooth=False)
    return [
        [disc, _dome(0.03, y - 0.075, y - 0.025)],
        [_dome(r, y - 0.12, y)],
        [disc, _lathe([(0.004, y - 0.22), (0.3 * r, y - 0.09), (0.8 * r, y - 0.025)])],
        [disc, _lathe([(0.6 * r, y - 0.085), (0.6 * r, y - 0.025)], smooth=False), _ball(0.06, y - 0.20)],
    ][top]


def _dome(radius: float, top: float, bottom: float) -> Lathe:
    t = np.linspace(0, 1, _NUM_PROFILE_POINTS) ** 2
    return Lathe(radius * np.sqrt(1 - (1 - t) ** 2) + 0.004, top + t * (bottom - top))


def _ball(radius: float, top: float) -> Lathe:
    t = (1 - np.cos(np.linspace(0, np.pi, _NUM_PROFILE_POINTS))) / 2
    return Lathe(radius * np.sqrt(1 - (2 * t - 1) ** 2) + 0.004, top + 2 * radius * t)


_TOPS = {"vase": _neck, "lamp": _lampshade, "jar": _lid}
