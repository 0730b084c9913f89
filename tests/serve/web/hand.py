"""A person's hand at the pad, and an ear on what the page sends."""

from collections.abc import Callable, Sequence
from math import cos, hypot, pi, sin
from typing import Any

from playwright.sync_api import Page

Point = tuple[float, float]
Body = dict[str, Any]
ARC = [(0.5 + 0.3 * cos(2 * pi * t / 24), 0.5 + 0.3 * sin(2 * pi * t / 24)) for t in range(20)]
LINE = [(0.1 + 0.8 * t / 8, 0.5) for t in range(9)]


def places(page: Page, points: Sequence[Point]) -> list[Point]:
    """Shares of the paper as pixels of the window."""
    page.locator("#pad").scroll_into_view_if_needed()
    box = page.locator("#pad").bounding_box()
    assert box
    return [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in points]


def draw(page: Page, points: Sequence[Point]) -> None:
    """One stroke, with the mouse."""
    (x, y), *rest = places(page, points)
    page.mouse.move(x, y)
    page.mouse.down()
    for x, y in rest:
        page.mouse.move(x, y)
    page.mouse.up()


def asked(page: Page, act: Callable[[], object], holds: Callable[[Body], bool] = lambda body: True) -> Body:
    """The first search for which `holds` is true that the page sends once `act()` has begun."""

    def wanted(request: Any) -> bool:
        return request.url.endswith("/v1/search") and holds(request.post_data_json)

    with page.expect_request(wanted) as request:
        act()
    body: Body = request.value.post_data_json or {}
    return body


def ends_at(point: Point, strokes: int) -> Callable[[Body], bool]:
    """Whether a drawing has so many strokes and the last ends there: searches go out in mid-stroke too."""

    def holds(body: Body) -> bool:
        drawn = body.get("sketch", [])
        return len(drawn) == strokes and near(drawn[-1][-1], point)

    return holds


def near(one: Sequence[float], other: Sequence[float], within: float = 0.01) -> bool:
    """Whether two points are the same but for the rounding to pixels."""
    return hypot(one[0] - other[0], one[1] - other[1]) < within


def sketched(page: Page, points: Sequence[Point], strokes: int = 1) -> Body:
    """Draw a stroke; the search with the whole of it."""
    return asked(page, lambda: draw(page, points), ends_at(points[-1], strokes))
