"""Keyboard use, screen readers, phones, reduced motion, and the content security policy."""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect

from serve.http.page import WEB
from tests.conftest import wait_until
from tests.serve.web.actions import ARC, search_after, search_by_stroke
from tests.serve.web.conftest import PHONE, FindViolations, collect_errors, open_pad

MAX_LINES = 250
# Elements to click in order, and what appears.
STEPS = {
    "#gallery": "#examples",
    "#open-filters": "#add-filter",
    "#add-filter": "#conditions li",
    "#close-filters": ".example >> nth=0",
    ".example >> nth=0": ".hit >> nth=22",
    "#share": "#toast:not(:empty)",
    "#help": "#shortcuts",
}
AXE_STEPS = {
    **{name: STEPS[name] for name in STEPS if name not in ("#share", "#help")},
    ".hit >> nth=0": "#lightbox img.loaded",
    "#lightbox-close": "#help",
    "#help": "#shortcuts",
}


def focused_index(page: Page) -> int:
    index: int = page.evaluate("[...document.querySelectorAll('.hit')].indexOf(document.activeElement)")
    return index


def test_arrow_keys_move_through_results_and_lightbox(pad: Page) -> None:
    pad.fill("#text", "a disc")
    expect(pad.locator(".hit")).to_have_count(24)
    pad.locator("h1").click()
    pad.keyboard.press("r")
    template = pad.evaluate("getComputedStyle(document.querySelector('#hits')).gridTemplateColumns")
    columns = template.count("px")
    for key, index in [("ArrowRight", 1), ("ArrowDown", 1 + columns), ("ArrowLeft", columns), ("End", 23)]:
        pad.keyboard.press(key)
        assert focused_index(pad) == index
    pad.keyboard.press("ArrowRight")
    assert focused_index(pad) == 23
    pad.keyboard.press("Home")
    pad.keyboard.press("Enter")
    expect(pad.locator("#lightbox-facts")).to_contain_text("1 of 24")
    pad.keyboard.press("ArrowRight")
    expect(pad.locator("#lightbox-facts")).to_contain_text("2 of 24")
    decode = "(image) => image.decode().then(() => image.naturalWidth)"
    assert pad.locator("#lightbox img").evaluate(decode) == 128
    pad.keyboard.press("Escape")
    expect(pad.locator("#lightbox")).to_be_hidden()
    wait_until(lambda: focused_index(pad) == 1, "the focus on the result of the lightbox", 5)


def test_focused_result_stays_focused_when_the_results_change(pad: Page) -> None:
    focused_text = "document.activeElement.querySelector('.text').textContent"
    pad.fill("#text", "a disc")
    pad.locator(".hit").nth(3).focus()
    text = pad.evaluate(focused_text)
    with pad.expect_response("**/v1/search"):
        # Not by hand, which would move the focus.
        pad.evaluate("document.querySelector('#weight').dispatchEvent(new Event('input'))")
    assert pad.evaluate(focused_text) == text


def test_tab_reaches_all_controls_and_one_result(pad: Page) -> None:
    search_by_stroke(pad, ARC)
    pad.fill("#text", "a disc")
    expect(pad.locator(".hit")).to_have_count(24)
    pad.locator("h1").click()  # start of the tab order
    reached = []
    for _ in range(13):
        pad.keyboard.press("Tab")
        reached.append(pad.evaluate("document.activeElement.id || document.activeElement.className"))
    expected = [
        "text",
        "without",
        "open-filters",
        "share",
        "help",
        "pen",
        "erase",
        "undo",
        "clear",
        "image",
        "weight",
        "width",
    ]
    assert [name for name in reached if name in expected] == expected
    assert reached.count("hit") == 1


def test_focus_is_visible(pad: Page) -> None:
    pad.keyboard.press("Tab")
    assert pad.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_shortcuts_are_listed_and_single_keys_can_be_disabled(pad: Page) -> None:
    search_by_stroke(pad, ARC)
    pad.keyboard.press("?")
    expect(pad.locator("#shortcuts dt:visible")).to_have_count(18)
    pad.uncheck("#single-keys")
    pad.keyboard.press("Escape")
    pad.locator("h1").click()  # moves the focus out of the dialog
    pad.keyboard.press("e")
    expect(pad.locator("#pen")).to_have_attribute("aria-pressed", "true")
    pad.keyboard.press("Control+Z")
    expect(pad.locator("#undo")).to_be_disabled()
    pad.reload()
    expect(pad.locator("#gallery")).to_contain_text("photos")
    expect(pad.locator("#single-keys")).not_to_be_checked()


def test_letters_in_the_text_are_no_shortcuts(pad: Page) -> None:
    pad.keyboard.press("/")
    assert search_after(pad, lambda: pad.keyboard.type("beer"))["text"] == "beer"
    expect(pad.locator("#pen")).to_have_attribute("aria-pressed", "true")


def test_all_controls_have_names(pad: Page) -> None:
    unnamed = pad.evaluate(
        """[...document.querySelectorAll("button, input:not([hidden]), select, canvas")]
           .filter((e) => !(e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim()))
           .map((e) => e.id)"""
    )
    assert unnamed == []


def test_axe_reports_no_violations(view: BrowserContext, url: str, find_violations: FindViolations) -> None:
    page = open_pad(view, url)
    for target, result in AXE_STEPS.items():
        page.locator(target).click()
        page.locator(result).wait_for()
        assert find_violations(page) == []


def test_page_fits_the_width_of_the_screen(view: BrowserContext, url: str) -> None:
    page = open_pad(view, url)
    size: ViewportSize | None = page.viewport_size
    assert size
    elements = "[...document.querySelectorAll('main *')]"
    right = f"Math.max(...{elements}.map((e) => e.getBoundingClientRect().right))"
    for target, result in STEPS.items():
        page.locator(target).click()
        page.locator(result).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert page.evaluate(right) <= size["width"]


def test_touch_targets_are_large(chromium: Browser, url: str) -> None:
    """At least 36 pixels high and wide, the tools 44 (WCAG 2.5.8 requires 24)."""
    with chromium.new_context(viewport=PHONE, has_touch=True, is_mobile=True) as context:
        sizes = open_pad(context, url).evaluate(
            """[...document.querySelectorAll("header button, .tools button")].filter((e) => e.offsetParent)
               .map((e) => [e.id, e.offsetWidth, e.offsetHeight])"""
        )
    assert len(sizes) == 9
    min_sizes = {"open-filters": 36, "share": 36, "help": 36}
    assert [entry for entry in sizes if min(entry[1:]) < min_sizes.get(entry[0], 44)] == []


def test_reduced_motion_disables_animations(chromium: Browser, url: str) -> None:
    with chromium.new_context(reduced_motion="reduce") as context:
        page = open_pad(context, url)
        page.evaluate("void (Element.prototype.animate = () => { throw new Error('animation') })")
        errors = collect_errors(page)
        for text in ("a disc", "a box"):
            with page.expect_response("**/v1/search"):
                page.fill("#text", text)
            expect(page.locator(".hit")).to_have_count(24)
        assert errors == []


def test_content_security_policy_blocks_other_hosts(context: BrowserContext, url: str) -> None:
    """The page itself never violates it, or the fixture `pad` would fail."""
    directive = open_pad(context, url).evaluate(
        """new Promise((resolve) => {
          document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
          document.body.insertAdjacentHTML("beforeend", "<img src='http://127.0.0.2/x.png' alt=''>");
        })"""
    )
    assert directive == "img-src"


def test_headers_of_the_page_and_its_files(url: str) -> None:
    media_types = {".js": "javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    with httpx.Client(base_url=url) as client:
        for path in ["/", *(f"/web/{file.name}" for file in WEB.iterdir())]:
            headers = client.get(path).headers
            assert media_types[Path(path).suffix or ".html"] in headers["content-type"]
            assert "default-src 'self'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert "camera=()" in headers["permissions-policy"]
            assert headers["cache-control"] == "no-cache"
        etag = client.get("/web/main.js").headers["etag"]
        assert client.get("/web/main.js", headers={"If-None-Match": etag}).status_code == 304


@pytest.mark.parametrize("file", sorted(WEB.iterdir()), ids=lambda file: file.name)
def test_files_are_short_and_use_no_other_host(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= MAX_LINES
    assert "style=" not in text
    urls = text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in urls
    assert "http://" not in urls
