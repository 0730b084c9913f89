"""Drawing, erasing, undo and redo: the search contains the strokes of the canvas."""

from playwright.sync_api import Browser, Page, expect

from tests.serve.web.actions import (
    ARC,
    LINE,
    draw,
    has_strokes,
    is_close,
    press_and_move,
    search_after,
    search_by_stroke,
    to_pixels,
)
from tests.serve.web.conftest import PHONE, open_pad


def test_stroke_is_sent_as_drawn(pad: Page) -> None:
    body = search_by_stroke(pad, ARC)
    [stroke] = body["sketch"]
    assert set(body) == {"k", "sketch", "stroke_width"}  # no weight without a text
    assert all(any(is_close(point, other, 0.02) for other in stroke) for point in ARC)


def test_results_appear_during_a_stroke(pad: Page) -> None:
    press_and_move(pad, ARC)
    expect(pad.locator(".hit")).to_have_count(24)
    expect(pad.locator("#undo")).to_be_disabled()
    pad.mouse.up()
    expect(pad.locator("#undo")).to_be_enabled()


def test_undo_redo_and_clear(pad: Page) -> None:
    search_by_stroke(pad, ARC)
    sketch = search_by_stroke(pad, LINE, strokes=2)["sketch"]
    assert search_after(pad, lambda: pad.click("#undo"), has_strokes(1))["sketch"] == sketch[:1]
    redo = search_after(pad, lambda: pad.keyboard.press("Control+Shift+Z"), has_strokes(2))
    assert redo["sketch"] == sketch
    pad.click("#clear")
    expect(pad.locator(".hit")).to_have_count(0)
    expect(pad.locator("#placeholder")).to_be_visible()
    expect(pad.locator("#clear")).to_be_disabled()
    assert search_after(pad, lambda: pad.keyboard.press("Control+Z"))["sketch"] == sketch
    expect(pad.locator("#canvas")).to_have_attribute("aria-label", "Drawing area: 2 strokes")


def test_eraser_splits_a_stroke(pad: Page) -> None:
    search_by_stroke(pad, LINE)
    pad.click("#erase")
    press_and_move(pad, [(0.5, 0.3), (0.5, 0.7)])
    left, right = search_after(pad, pad.mouse.up)["sketch"]
    assert is_close(left[0], LINE[0])
    assert is_close(right[-1], LINE[-1])
    assert is_close(left[-1], (0.47, 0.5))
    assert is_close(right[0], (0.53, 0.5))


def test_fast_eraser_leaves_no_gaps(pad: Page) -> None:
    search_by_stroke(pad, LINE)
    pad.keyboard.press("e")
    draw(pad, [(0.02, 0.5), (0.98, 0.5)])  # one move over the line
    expect(pad.locator("#placeholder")).to_be_visible()
    assert len(search_after(pad, lambda: pad.keyboard.press("Control+Z"))["sketch"]) == 1


def test_eraser_without_effect_adds_no_undo_step(pad: Page) -> None:
    pad.click("#erase")
    draw(pad, ARC)
    expect(pad.locator("#undo")).to_be_disabled()


def test_pen_width_is_sent(pad: Page) -> None:
    search_by_stroke(pad, ARC)
    assert search_after(pad, lambda: pad.fill("#width", "5"))["stroke_width"] == 5
    assert search_after(pad, lambda: pad.keyboard.press("["))["stroke_width"] == 4


def test_stroke_ends_at_the_edge_of_the_canvas(pad: Page) -> None:
    [stroke] = search_by_stroke(pad, [(0.5, 0.5), (1.4, 0.5)])["sketch"]
    assert is_close(stroke[-1], (1, 0.5))
    assert all(0 <= value <= 1 for point in stroke for value in point)


def test_touch_draws_and_does_not_scroll(chromium: Browser, url: str) -> None:
    with chromium.new_context(viewport=PHONE, has_touch=True, is_mobile=True) as context:
        page = open_pad(context, url)
        touch = context.new_cdp_session(page)

        def swipe() -> None:
            for kind, (x, y) in zip(
                ["touchStart", *["touchMove"] * 9], to_pixels(page, ARC[:10]), strict=True
            ):
                touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
            touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

        def is_complete(body: dict[str, list[list[list[float]]]]) -> bool:
            return is_close(body["sketch"][-1][-1], ARC[9])

        assert len(search_after(page, swipe, is_complete)["sketch"][0]) > 5
        assert page.evaluate("scrollY") == 0


def test_eraser_end_of_a_pen_erases(pad: Page) -> None:
    """Pens report it as button 5, which Playwright cannot send, so the test dispatches the event."""
    search_by_stroke(pad, LINE)

    def erase() -> None:
        [(x, y)] = to_pixels(pad, [(0.5, 0.5)])
        event = {"pointerId": 1, "pointerType": "pen", "clientX": x, "clientY": y, "isPrimary": True}
        # Synthetic pointers cannot be captured.
        pad.evaluate("document.querySelector('#canvas').setPointerCapture = () => {}")
        pad.dispatch_event("#canvas", "pointerdown", {**event, "button": 5})
        pad.dispatch_event("#canvas", "pointerup", {**event, "button": 5})

    assert len(search_after(pad, erase, has_strokes(2))["sketch"]) == 2
