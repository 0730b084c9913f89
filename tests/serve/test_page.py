"""The sketch pad, used as a person does: draw, type, look, make it large."""

import shutil
from math import cos, pi, sin

import pytest
from playwright.sync_api import expect, sync_playwright

CHROMIUM = shutil.which("chromium")
# In a container: no sandbox of its own, and not a byte to anybody but the endpoint.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
REFUSED = "status of 422"  # the browser logs each refused request, which is no fault of the page
CIRCLE = [(0.5 + 0.3 * cos(2 * pi * t / 20), 0.5 + 0.3 * sin(2 * pi * t / 20)) for t in range(21)]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"
)


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(params=[(1200, 820), (390, 844)], ids=["desk", "phone"])
def page(request, chromium, endpoint):
    width, height = request.param
    page = chromium.new_page(viewport={"width": width, "height": height})
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if REFUSED not in message.text else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(str(endpoint.base_url))
    page.wait_for_selector("#gallery:has-text('24 photos')")
    yield page
    page.close()
    assert complaints == []


def draw(page, points) -> None:
    box = page.locator("#pad").bounding_box()
    (x, y), *rest = [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in points]
    page.mouse.move(x, y)
    page.mouse.down()
    for x, y in rest:
        page.mouse.move(x, y)
    page.mouse.up()


def asked(page, act) -> dict:
    """What the page sends when `act()` is done."""
    with page.expect_request("**/v1/search") as request:
        act()
    return request.value.post_data_json


def test_draw_type_and_see_hits(page):
    body = asked(page, lambda: draw(page, CIRCLE))
    [stroke] = body["sketch"]
    assert "text" not in body
    assert stroke == [pytest.approx(point, abs=0.01) for point in CIRCLE]

    body = asked(page, lambda: page.fill("#words", " a red disc "))
    assert body["text"] == "a red disc"
    page.wait_for_selector(".hit img")
    expect(page.locator(".hit img").first).to_have_js_property("complete", True)
    assert page.locator(".hit img").first.evaluate("image => image.naturalWidth") == 128
    assert page.locator(".hit").count() == 12
    assert "hits in" in page.inner_text("#message")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    page.locator(".hit").nth(1).click()
    assert "2 of 12" in page.inner_text("#large")
    page.keyboard.press("ArrowRight")
    assert "3 of 12" in page.inner_text("#large")
    page.keyboard.press("Escape")
    assert not page.locator("#large").is_visible()


def test_undo_clear_balance_and_count(page):
    draw(page, CIRCLE)
    body = asked(page, lambda: draw(page, [(0.2, 0.2), (0.4, 0.3)]))
    assert len(body["sketch"]) == 2
    body = asked(page, lambda: page.click("#undo"))
    assert len(body["sketch"]) == 1
    assert asked(page, lambda: page.fill("#balance", "80"))["sketch_weight"] == 0.8
    assert asked(page, lambda: page.fill("#k", "3"))["k"] == 3
    expect(page.locator(".hit")).to_have_count(3)
    assert asked(page, lambda: page.fill("#pen", "5"))["stroke_width"] == 5
    page.click("#clear")
    expect(page.locator(".hit")).to_have_count(0)
    assert page.locator("#invitation").is_visible()


def test_error_is_shown_in_the_words_of_the_server(page):
    page.fill("#words", "a " * 70)
    page.wait_for_selector("#message.bad")
    assert "70 words are more than 64" in page.inner_text("#message")


def test_every_control_has_a_name(page):
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, input, select, canvas")]
           .filter((e) => !(e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim()))
           .map((e) => e.id)"""
    )
    assert unnamed == []
