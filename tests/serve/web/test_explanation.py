"""The explanation of a hit in the pad: by holding it, by a key, and from the enlarged photo."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.serve.local import serve_application
from tests.serve.web.actions import ARC, search_after, search_by_stroke
from tests.serve.web.conftest import PHONE, FindViolations, open_pad

HOLD_MS = 600
IS_COLOURED = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.some((_, i) => i % 4 === 0 && data[i + 3] > 99 && Math.abs(data[i] - data[i + 2]) > 99);
}"""


@pytest.fixture(scope="module")
def url(checkpoint_uri: str, gallery_uri: str) -> Iterator[str]:
    """The URL of the pad of the real application, without Ray."""
    with serve_application(checkpoint_uri, gallery_uri) as url:
        yield url


def search_by_both(page: Page) -> Page:
    search_by_stroke(page, ARC)
    with page.expect_response(lambda response: "a red disc" in (response.request.post_data or "")):
        page.fill("#text", "a red disc")
    expect(page.locator(".hit")).to_have_count(24)
    return page


@pytest.fixture
def pad(pad: Page) -> Page:
    """The pad with the results of a stroke and a text."""
    return search_by_both(pad)


def explain(page: Page, action: Callable[[], object]) -> Any:
    """The explanation that an action requests; its dialog is shown."""
    page.wait_for_timeout(300)  # a search in progress would change the hits
    page.wait_for_function("document.querySelector('#results').ariaBusy === 'false'")
    with page.expect_response(re.compile("/v1/explain")) as response:
        action()
    assert response.value.request.url.endswith(
        f"?hit={page.locator('.hit img').first.get_attribute('src')[11:]}"
    )
    expect(page.locator("#explanation [role=status]")).to_contain_text("Score")
    return response.value.json()


def hold(page: Page) -> None:
    """Press the mouse on the first hit, and release it."""
    page.locator(".hit").first.hover()
    page.mouse.down()
    page.wait_for_timeout(HOLD_MS)
    page.mouse.up()


def test_holding_a_hit_shows_its_strokes_and_words(pad: Page) -> None:
    explanation = explain(pad, lambda: hold(pad))
    expect(pad.locator("#lightbox")).to_be_hidden()
    assert [word for word, _ in explanation["words"]] == ["a", "red", "disc"]
    expect(pad.locator("#explanation li")).to_have_text(
        [re.compile(f"^{word} [+−]{abs(value):.3f}$") for word, value in explanation["words"]]
    )
    strongest = max(value for row in explanation["cells"] for value in row)
    drawing = pad.get_by_role("img", name=re.compile(f"The strongest part is .*{strongest:.3f}"))
    expect(drawing).to_be_visible()
    assert drawing.evaluate(IS_COLOURED)
    pad.keyboard.press("Escape")
    expect(pad.locator("#explanation")).to_be_hidden()
    pad.locator(".hit").first.click()
    expect(pad.locator("#lightbox")).to_be_visible()
    explain(pad, lambda: pad.get_by_role("button", name="Why this?").click())
    expect(pad.locator("#lightbox")).to_be_hidden()


def test_key_explains_the_focused_hit_and_focus_returns(pad: Page) -> None:
    pad.locator("h1").click()
    pad.keyboard.press("x")  # no hit has the focus
    expect(pad.locator("#explanation")).to_be_hidden()
    pad.keyboard.press("r")
    explain(pad, lambda: pad.keyboard.press("x"))
    pad.keyboard.press("Escape")
    expect(pad.locator(".hit").first).to_be_focused()
    pad.keyboard.press("Enter")
    explain(pad, lambda: pad.keyboard.press("x"))


def test_text_has_no_heat_map_and_marks_have_no_explanation(pad: Page) -> None:
    search_after(pad, lambda: pad.click("#clear"), lambda body: "sketch" not in body)
    explain(pad, lambda: hold(pad))
    expect(pad.locator("#explanation canvas")).to_be_hidden()
    expect(pad.locator("#explanation li")).to_have_count(3)
    pad.keyboard.press("Escape")
    pad.locator("#hits li").first.hover()
    search_after(pad, pad.locator("#hits .like").first.click, lambda body: "like" in body)
    search_after(pad, lambda: pad.fill("#text", ""), lambda body: "text" not in body)
    expect(pad.locator(".hit")).to_have_count(23)
    pad.locator(".hit").first.focus()
    pad.keyboard.press("x")
    expect(pad.locator("#explanation [role=status]")).to_contain_text(
        "a sketch, a text or both are explained"
    )
    expect(pad.locator("#explanation li")).to_have_count(0)


def test_long_press_of_a_finger(chromium: Browser, url: str) -> None:
    with chromium.new_context(viewport=PHONE, has_touch=True, is_mobile=True) as context:
        page = open_pad(context, url)
        page.fill("#text", "a red disc")
        expect(page.locator(".hit img.loaded")).to_have_count(24)
        page.locator(".hit").first.scroll_into_view_if_needed()
        box = page.locator(".hit").first.bounding_box()
        assert box is not None
        touch = context.new_cdp_session(page)
        point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 3}

        def press() -> None:
            touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
            page.wait_for_timeout(HOLD_MS)
            touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

        explain(page, press)
        expect(page.locator("#lightbox")).to_be_hidden()
        dialog = page.locator("#explanation").bounding_box()
        assert dialog is not None
        assert dialog["width"] <= PHONE["width"]


def test_axe_reports_no_violations_of_an_explanation(
    view: BrowserContext, url: str, find_violations: FindViolations
) -> None:
    page = search_by_both(open_pad(view, url))
    page.locator(".hit").first.focus()
    explain(page, lambda: page.keyboard.press("x"))
    assert find_violations(page) == []
