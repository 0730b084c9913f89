"""User input in the pad, and the search requests that follow."""

from collections.abc import Callable, Sequence
from math import cos, hypot, pi, sin
from typing import Any

from playwright.sync_api import Page, expect

Point = tuple[float, float]
Body = dict[str, Any]
ARC = [(0.5 + 0.3 * cos(2 * pi * t / 24), 0.5 + 0.3 * sin(2 * pi * t / 24)) for t in range(20)]
LINE = [(0.1 + 0.8 * t / 8, 0.5) for t in range(9)]
DAMAGED = "This link is damaged. Ask the sender for a new one."


def to_pixels(page: Page, points: Sequence[Point]) -> list[Point]:
    """Points of the canvas, from 0 to 1, as pixels of the window."""
    page.locator("#canvas").scroll_into_view_if_needed()
    box = page.locator("#canvas").bounding_box()
    assert box
    return [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in points]


def press_and_move(page: Page, points: Sequence[Point]) -> None:
    """Start a stroke with the mouse."""
    (x, y), *others = to_pixels(page, points)
    page.mouse.move(x, y)
    page.mouse.down()
    for x, y in others:
        page.mouse.move(x, y)


def draw(page: Page, points: Sequence[Point]) -> None:
    """Draw a stroke with the mouse."""
    press_and_move(page, points)
    page.mouse.up()


def search_after(
    page: Page, action: Callable[[], object], matches: Callable[[Body], bool] = lambda body: True
) -> Body:
    """The body of the first matching search that the page sends during or after the action."""

    def is_match(request: Any) -> bool:
        return request.url.endswith("/v1/search") and matches(request.post_data_json)

    with page.expect_request(is_match) as request:
        action()
    body: Body = request.value.post_data_json or {}
    return body


def select_category(page: Page, name: str) -> None:
    """Select a category in the drawer of filters."""
    page.click("#open-filters")
    page.select_option("#category", name)
    page.click("#close-filters")


def has_strokes(count: int) -> Callable[[Body], bool]:
    return lambda body: len(body.get("sketch", [])) == count


def is_close(one: Sequence[float], other: Sequence[float], tolerance: float = 0.01) -> bool:
    """Whether two points are equal up to the rounding to pixels."""
    return hypot(one[0] - other[0], one[1] - other[1]) < tolerance


def search_by_stroke(page: Page, points: Sequence[Point], strokes: int = 1) -> Body:
    """Draw a stroke; the body of the search after it. `strokes`: number with this one."""
    press_and_move(page, points)
    # Searches during the stroke contain its unsimplified points.
    return search_after(page, page.mouse.up, has_strokes(strokes))


def to_fragment(page: Page, strokes: Sequence[Sequence[Sequence[float]]], **fields: Any) -> str:
    """The fragment of a shared link, made by the pad."""
    query = {"text": "", "weight": 0.5, "category": "", "width": 2, **fields}
    query["drawing"] = {"strokes": strokes, "image": None}
    function = "(query) => import('/web/share.js').then((share) => share.toFragment(query))"
    fragment: str = page.evaluate(function, query)
    return fragment


def open_fragment(page: Page, fragment: str) -> None:
    page.evaluate("(fragment) => { location.hash = fragment }", fragment)


def assert_link_is_refused(page: Page, fragment: str) -> None:
    """Open a fragment; the pad says that the link is damaged."""
    page.evaluate("document.querySelector('#toast').textContent = ''")  # of an earlier link
    open_fragment(page, fragment)
    expect(page.locator("#toast")).to_have_text(DAMAGED)
