"""For everybody: by keyboard, by screen reader, on a phone, with little motion, and under a strict policy."""

import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from serve.http.page import WEB
from tests.conftest import wait_until
from tests.serve.web.conftest import DESK, PHONE, listened, opened
from tests.serve.web.hand import ARC, asked, sketched

# Where `npm pack axe-core` was unpacked: https://github.com/dequelabs/axe-core
AXE = os.environ.get("STBIR_AXE", "")
LIMIT = 250
CONDITION = ("#conditions summary", "#add-condition")


def focused(page: Page) -> int:
    place: int = page.evaluate("[...document.querySelectorAll('.hit')].indexOf(document.activeElement)")
    return place


def test_arrows_lead_through_the_hits_and_the_large_one(pad: Page) -> None:
    pad.fill("#words", "a disc")
    expect(pad.locator(".hit")).to_have_count(12)
    pad.locator("h1").click()
    pad.keyboard.press("r")
    columns = pad.evaluate("getComputedStyle(document.querySelector('#hits')).gridTemplateColumns").count(
        "px"
    )
    for key, place in [("ArrowRight", 1), ("ArrowDown", 1 + columns), ("ArrowLeft", columns), ("End", 11)]:
        pad.keyboard.press(key)
        assert focused(pad) == place
    pad.keyboard.press("ArrowRight")
    assert focused(pad) == 11
    pad.keyboard.press("Home")
    pad.keyboard.press("Enter")
    expect(pad.locator("#large-facts")).to_contain_text("1 of 12")
    pad.keyboard.press("ArrowRight")
    expect(pad.locator("#large-facts")).to_contain_text("2 of 12")
    assert (
        pad.locator("#large img").evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 128
    )
    pad.keyboard.press("Escape")
    expect(pad.locator("#large")).to_be_hidden()
    wait_until(lambda: focused(pad) == 1, "the focus on the one that was large last", 5)


def test_a_hit_keeps_the_focus_when_the_hits_change(pad: Page) -> None:
    pad.fill("#words", "a disc")
    pad.locator(".hit").nth(3).focus()
    name = pad.evaluate("document.activeElement.querySelector('.words').textContent")
    with pad.expect_response("**/v1/search"):
        pad.evaluate("(k) => { k.value = 20; k.dispatchEvent(new Event('input')) }", pad.query_selector("#k"))
    expect(pad.locator(".hit")).to_have_count(20)
    assert pad.evaluate("document.activeElement.querySelector('.words').textContent") == name


def test_tab_reaches_every_control_and_one_hit(pad: Page) -> None:
    sketched(pad, ARC)
    pad.fill("#words", "a disc")
    expect(pad.locator(".hit")).to_have_count(12)
    pad.locator("h1").click()  # Tab goes on from there
    reached = []
    for _ in range(14):
        pad.keyboard.press("Tab")
        reached.append(pad.evaluate("document.activeElement.id || document.activeElement.className"))
    expected = ["share", "help", "pen", "erase", "undo", "clear", "picture", "words", "balance", "category"]
    assert [name for name in reached if name in expected] == expected
    assert reached.count("hit") == 1


def test_the_focus_is_seen(pad: Page) -> None:
    pad.keyboard.press("Tab")
    assert pad.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_keys_are_told_and_single_ones_can_be_switched_off(pad: Page) -> None:
    sketched(pad, ARC)
    pad.keyboard.press("?")
    expect(pad.locator("#shortcuts dt:visible")).to_have_count(13)
    pad.uncheck("#single-keys")
    pad.keyboard.press("Escape")
    pad.locator("h1").click()  # the focus leaves the dialog
    pad.keyboard.press("e")
    expect(pad.locator("#pen")).to_have_attribute("aria-pressed", "true")
    pad.keyboard.press("Control+Z")
    expect(pad.locator("#undo")).to_be_disabled()
    pad.reload()
    expect(pad.locator("#gallery")).to_contain_text("photos")
    expect(pad.locator("#single-keys")).not_to_be_checked()


def test_keys_belong_to_the_words_while_one_types(pad: Page) -> None:
    pad.keyboard.press("/")
    assert asked(pad, lambda: pad.keyboard.type("beer"))["text"] == "beer"
    expect(pad.locator("#pen")).to_have_attribute("aria-pressed", "true")


def test_every_control_has_a_name(pad: Page) -> None:
    unnamed = pad.evaluate(
        """[...document.querySelectorAll("button, input:not([hidden]), select, canvas")]
           .filter((e) => !(e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim()))
           .map((e) => e.id)"""
    )
    assert unnamed == []


@pytest.fixture(params=[(DESK, "light"), (DESK, "dark"), (PHONE, "light"), (PHONE, "dark")], ids=str)
def view(request: Any, chromium: Browser) -> Any:
    size, scheme = request.param
    touch = size == PHONE
    context = chromium.new_context(viewport=size, color_scheme=scheme, has_touch=touch, is_mobile=touch)
    yield context
    context.close()


def test_axe_finds_nothing(view: BrowserContext, served: tuple[object, str]) -> None:
    if not AXE:
        pytest.skip("no axe: set STBIR_AXE to its axe.min.js (npm pack axe-core)")
    page = opened(view, served[1])
    page.evaluate(Path(AXE).read_text())
    for pressed in ("#gallery", *CONDITION, ".example >> nth=0", ".hit >> nth=0", "#large-close", "#help"):
        page.locator(pressed).click()
        page.wait_for_timeout(500)  # what fades in has no contrast yet
        found = page.evaluate("axe.run()")["violations"]
        assert [(rule["id"], [node["target"] for node in rule["nodes"]]) for rule in found] == []


def test_nothing_is_wider_than_the_screen(view: BrowserContext, served: tuple[object, str]) -> None:
    page = opened(view, served[1])
    assert page.viewport_size
    right = (
        "Math.max(...[...document.querySelectorAll('main *')].map((e) => e.getBoundingClientRect().right))"
    )
    for pressed in ("#gallery", *CONDITION, ".example >> nth=0", "#share", "#help"):
        page.locator(pressed).click()
        page.wait_for_timeout(400)
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
        assert page.evaluate(right) <= page.viewport_size["width"]


def test_fingers_find_every_button(chromium: Browser, served: tuple[object, str]) -> None:
    """At least 36 pixels high and wide, the tools 44 (WCAG 2.5.8 asks for 24)."""
    context = chromium.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    page = opened(context, served[1])
    sizes = page.evaluate(
        """[...document.querySelectorAll("header button, .tools button")].filter((e) => e.offsetParent)
           .map((e) => [e.id, e.offsetWidth, e.offsetHeight])"""
    )
    assert len(sizes) == 8
    least = {"share": 36, "help": 36}
    assert [entry for entry in sizes if min(entry[1:]) < least.get(entry[0], 44)] == []
    context.close()


def test_little_motion_where_little_is_wanted(chromium: Browser, served: tuple[object, str]) -> None:
    context = chromium.new_context(reduced_motion="reduce")
    page = opened(context, served[1])
    page.evaluate("void (Element.prototype.animate = () => { throw new Error('it moves') })")
    complaints = listened(page)
    for words in ("a disc", "a box"):
        with page.expect_response("**/v1/search"):
            page.fill("#words", words)
        expect(page.locator(".hit")).to_have_count(12)
    assert complaints == []
    context.close()


def test_the_policy_is_in_force(context: BrowserContext, served: tuple[object, str]) -> None:
    """What the page itself does is within it, or every test with `pad` would hear of it."""
    blocked = opened(context, served[1]).evaluate(
        """new Promise((done) => {
          document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
          document.body.insertAdjacentHTML("beforeend", "<img src='http://127.0.0.2/x.png' alt=''>");
        })"""
    )
    assert blocked == "img-src"


def test_headers_of_the_page_and_its_files(served: tuple[object, str]) -> None:
    kinds = {".js": "javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    with httpx.Client(base_url=served[1]) as client:
        for path in ["/", *(f"/web/{file.name}" for file in WEB.iterdir())]:
            answer = client.get(path)
            assert kinds[Path(path).suffix or ".html"] in answer.headers["content-type"]
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert "camera=()" in answer.headers["permissions-policy"]
            assert answer.headers["cache-control"] == "no-cache"
        tag = client.get("/web/main.js").headers["etag"]
        assert client.get("/web/main.js", headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize("file", sorted(WEB.iterdir()), ids=lambda file: file.name)
def test_files_are_small_and_name_no_other_host(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= LIMIT
    assert "style=" not in text
    assert not [
        word for word in ("https://", "http://") if word in text.replace("http://www.w3.org/2000/svg", "")
    ]
