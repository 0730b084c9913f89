"""Drawing, and taking it back: what is on the paper is what is sent."""

from playwright.sync_api import Browser, Page, expect

from tests.serve.web.conftest import PHONE
from tests.serve.web.hand import ARC, LINE, asked, draw, ends_at, near, places, sketched


def test_a_stroke_is_sent_as_it_was_drawn(pad: Page) -> None:
    body = sketched(pad, ARC)
    [stroke] = body["sketch"]
    assert set(body) == {"k", "sketch", "stroke_width"}  # without words there is nothing to balance
    assert all(any(near(point, drawn, 0.02) for drawn in stroke) for point in ARC)


def test_hits_come_while_the_pen_is_still_down(pad: Page) -> None:
    (x, y), *rest = places(pad, ARC)
    pad.mouse.move(x, y)
    pad.mouse.down()
    for x, y in rest:
        pad.mouse.move(x, y)
    expect(pad.locator(".hit")).to_have_count(12)
    expect(pad.locator("#undo")).to_be_disabled()
    pad.mouse.up()
    expect(pad.locator("#undo")).to_be_enabled()


def test_undo_redo_and_clear(pad: Page) -> None:
    sketched(pad, ARC)
    second = sketched(pad, LINE, strokes=2)["sketch"]
    assert asked(pad, lambda: pad.click("#undo"))["sketch"] == second[:1]
    assert asked(pad, lambda: pad.keyboard.press("Control+Shift+Z"))["sketch"] == second
    pad.click("#clear")
    expect(pad.locator(".hit")).to_have_count(0)
    expect(pad.locator("#invitation")).to_be_visible()
    expect(pad.locator("#clear")).to_be_disabled()
    assert asked(pad, lambda: pad.keyboard.press("Control+Z"))["sketch"] == second
    expect(pad.locator("#pad")).to_have_attribute("aria-label", "Drawing area: 2 strokes")


def test_the_eraser_cuts_a_stroke_in_two(pad: Page) -> None:
    sketched(pad, LINE)
    pad.click("#erase")
    left, right = asked(pad, lambda: draw(pad, [(0.5, 0.3), (0.5, 0.7)]))["sketch"]
    assert near(left[0], LINE[0])
    assert near(right[-1], LINE[-1])
    assert near(left[-1], (0.47, 0.5))
    assert near(right[0], (0.53, 0.5))


def test_a_quick_sweep_of_the_eraser_leaves_no_islands(pad: Page) -> None:
    sketched(pad, LINE)
    pad.keyboard.press("e")
    draw(pad, [(0.02, 0.5), (0.98, 0.5)])  # one move over the whole line
    expect(pad.locator("#invitation")).to_be_visible()
    assert len(asked(pad, lambda: pad.keyboard.press("Control+Z"))["sketch"]) == 1


def test_an_eraser_that_meets_nothing_is_nothing_to_undo(pad: Page) -> None:
    pad.click("#erase")
    draw(pad, ARC)
    expect(pad.locator("#undo")).to_be_disabled()


def test_the_width_of_the_pen_is_sent(pad: Page) -> None:
    sketched(pad, ARC)
    assert asked(pad, lambda: pad.fill("#width", "5"))["stroke_width"] == 5
    assert asked(pad, lambda: pad.keyboard.press("["))["stroke_width"] == 4


def test_a_stroke_that_leaves_the_paper_ends_at_its_edge(pad: Page) -> None:
    [stroke] = asked(pad, lambda: draw(pad, [(0.5, 0.5), (1.4, 0.5)]), ends_at((1, 0.5), 1))["sketch"]
    assert all(0 <= value <= 1 for point in stroke for value in point)


def test_a_finger_draws_and_does_not_scroll(chromium: Browser, served: tuple[object, str]) -> None:
    context = chromium.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(served[1])
    expect(page.locator("#gallery")).to_contain_text("photos")
    touch = context.new_cdp_session(page)

    def swipe() -> None:
        for kind, at in zip(["touchStart", *["touchMove"] * 9], places(page, ARC[:10]), strict=True):
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": at[0], "y": at[1]}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    assert len(asked(page, swipe, ends_at(ARC[9], 1))["sketch"][0]) > 5
    assert page.evaluate("scrollY") == 0
    context.close()


def test_the_other_end_of_a_pen_erases(pad: Page) -> None:
    """A real pen says so by button 5, which no automation sends: so the event is made here."""
    sketched(pad, LINE)

    def rub() -> None:
        [(x, y)] = places(pad, [(0.5, 0.5)])
        event = {"pointerId": 1, "pointerType": "pen", "clientX": x, "clientY": y, "isPrimary": True}
        # A made pointer cannot be captured.
        pad.evaluate("document.querySelector('#pad').setPointerCapture = () => {}")
        pad.dispatch_event("#pad", "pointerdown", {**event, "button": 5})
        pad.dispatch_event("#pad", "pointerup", {**event, "button": 5})

    assert len(asked(pad, rub)["sketch"]) == 2
