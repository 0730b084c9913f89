"""Shared links: the URL fragment holds the query, and damaged links are refused."""

import json

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.serve.web.actions import (
    ARC,
    DAMAGED,
    LINE,
    assert_link_is_refused,
    is_close,
    open_fragment,
    search_after,
    search_by_stroke,
    select_category,
    to_fragment,
)
from tests.serve.web.conftest import open_pad

# A link that an earlier release made.
OLD_LINK = (
    "#q1.LczBCkBAFIbRV9G3_tNNJrmvolloUGKhMWUh7y5lexbn5sSHIZiaYGrNZDGK"
    "gjNWeZ6qaT0T4sKt7kTC-WnDgzjwVixfwpHXNCP2gvoYnxc"
)


def test_link_restores_the_query(context: BrowserContext, pad: Page) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    search_by_stroke(pad, ARC)
    search_by_stroke(pad, LINE, strokes=2)
    pad.fill("#text", "a red disc – ünïcode <b>")
    select_category(pad, "disc")
    pad.fill("#width", "4")
    original = search_after(
        pad, lambda: pad.fill("#weight", "70"), lambda body: body.get("sketch_weight") == 0.7
    )
    pad.click("#share")
    expect(pad.locator("#toast")).to_have_text("Link copied.")
    link = pad.evaluate("navigator.clipboard.readText()")
    assert len(link) < 500

    page = context.new_page()
    restored = search_after(page, lambda: page.goto(link), lambda body: "sketch" in body)
    assert {**restored, "sketch": None} == {**original, "sketch": None}
    for stroke, original_stroke in zip(restored["sketch"], original["sketch"], strict=True):
        assert is_close(stroke[0], original_stroke[0])
        assert is_close(stroke[-1], original_stroke[-1])
        assert all(any(is_close(point, other, 0.1) for other in original_stroke) for point in stroke)
    expect(page.locator(".hit")).to_have_count(12)


def test_links_of_earlier_releases_open(context: BrowserContext, url: str) -> None:
    page = context.new_page()
    body = search_after(page, lambda: page.goto(f"{url}/{OLD_LINK}"), lambda body: "sketch" in body)
    assert body == {
        "sketch": [[[0.1, 0.5], [0.9, 0.5]]],
        "text": "a red disc",
        "sketch_weight": 0.7,
        "category": "disc",
        "k": 24,
        "stroke_width": 4,
        "where": [{"column": "price", "op": "lt", "value": 9}],
    }


def test_link_is_in_the_address_bar_without_clipboard_access(pad: Page) -> None:
    search_by_stroke(pad, ARC)
    pad.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(new DOMException('no')))")
    pad.keyboard.press("l")
    expect(pad.locator("#toast")).to_contain_text("address bar")
    assert "#q1." in pad.url


def test_link_length_is_limited(pad: Page) -> None:
    wave = [[i / 200, 0.5 + 0.4 * ((i * 7919) % 101 - 50) / 50] for i in range(200)]
    assert len(to_fragment(pad, [wave] * 10)) < 8000
    noise = np.random.default_rng(0).random((8000, 2)).tolist()
    with pytest.raises(Exception, match="too long for a link"):
        to_fragment(pad, [noise])


@pytest.mark.parametrize("fragment", ["#q1.%%%", "#q1.AAAA", "#q1.", "#q1." + "A" * 9000])
def test_damaged_link_is_refused(context: BrowserContext, url: str, fragment: str) -> None:
    page = open_pad(context, f"{url}/{fragment}")
    expect(page.locator("#toast")).to_have_text(DAMAGED)
    expect(page.locator("#placeholder")).to_be_visible()


FORGE = """async (text) => {
  const deflated = new Blob([text]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  const bytes = new Uint8Array(await new Response(deflated).arrayBuffer());
  return "#q1." + btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
}"""


def test_forged_link_is_refused(pad: Page) -> None:
    for data in (
        {"s": [[1]], "w": 0.5, "k": 12, "p": 2},
        {"s": [[1, "x"]], "w": 0.5, "k": 12, "p": 2},
        {"s": "abc", "w": 0.5, "k": 12, "p": 2},
        {"s": [], "w": "0.5", "k": 12, "p": 2},
        {"s": [], "w": 0.5},
        {"s": [], "t": "x" * 500_000, "w": 0.5, "k": 12, "p": 2},  # short as a link, long when inflated
    ):
        assert_link_is_refused(pad, pad.evaluate(FORGE, json.dumps(data)))


def test_unknown_category_is_sent(pad: Page) -> None:
    search_by_stroke(pad, ARC)
    fragment = to_fragment(pad, [[[0.2, 0.2], [0.8, 0.8]]], category="x")
    body = search_after(pad, lambda: open_fragment(pad, fragment), lambda body: "category" in body)
    assert body["category"] == "x" == pad.input_value("#category")
