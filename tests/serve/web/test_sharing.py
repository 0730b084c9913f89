"""A query as a link: it comes back as it was, and says so where it cannot."""

import json

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.serve.web.conftest import opened
from tests.serve.web.hand import ARC, LINE, asked, near, sketched

TO_FRAGMENT = "(json) => import('/web/share.js').then((share) => share.toFragment(JSON.parse(json)))"


def _query(strokes: list[list[list[float]]]) -> str:
    drawing = {"strokes": strokes, "picture": None}
    return json.dumps({"drawing": drawing, "words": "", "weight": 0.5, "category": "", "k": 12, "width": 2})


def test_a_link_brings_the_query_back(context: BrowserContext, pad: Page) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    sketched(pad, ARC)
    sketched(pad, LINE, strokes=2)
    pad.fill("#words", "a red disc – ünïcode <b>")
    pad.select_option("#category", "disc")
    pad.fill("#k", "5")
    pad.fill("#width", "4")
    sent = asked(pad, lambda: pad.fill("#balance", "70"), lambda body: body.get("sketch_weight") == 0.7)
    pad.click("#share")
    expect(pad.locator("#toast")).to_have_text("Link copied.")
    link = pad.evaluate("navigator.clipboard.readText()")
    assert len(link) < 500

    other = context.new_page()
    body = asked(other, lambda: other.goto(link), lambda body: "sketch" in body)
    assert {**body, "sketch": None} == {**sent, "sketch": None}
    for stroke, original in zip(body["sketch"], sent["sketch"], strict=True):
        assert near(stroke[0], original[0])
        assert near(stroke[-1], original[-1])
        assert all(any(near(point, other_point, 0.1) for other_point in original) for point in stroke)
    expect(other.locator(".hit")).to_have_count(5)


def test_where_the_page_may_not_write_the_clipboard_the_address_has_the_link(pad: Page) -> None:
    sketched(pad, ARC)
    pad.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(new DOMException('no')))")
    pad.keyboard.press("l")
    expect(pad.locator("#toast")).to_contain_text("address bar")
    assert "#q1." in pad.url


def test_an_ordinary_drawing_fits_and_an_endless_one_is_refused(pad: Page) -> None:
    wave = [[i / 200, 0.5 + 0.4 * ((i * 7919) % 101 - 50) / 50] for i in range(200)]
    assert len(pad.evaluate(TO_FRAGMENT, _query([wave] * 10))) < 8000
    noise = np.random.default_rng(0).random((8000, 2)).tolist()
    with pytest.raises(Exception, match="too long for a link: erase some"):
        pad.evaluate(TO_FRAGMENT, _query([noise]))


@pytest.mark.parametrize("fragment", ["#q1.%%%", "#q1.AAAA", "#q1.", "#q1." + "A" * 9000])
def test_a_damaged_link_says_so(context: BrowserContext, served: tuple[object, str], fragment: str) -> None:
    page = opened(context, f"{served[1]}/{fragment}")
    expect(page.locator("#toast")).to_have_text("This link is damaged: ask for it again.")
    expect(page.locator("#invitation")).to_be_visible()


@pytest.mark.parametrize(
    "forged",
    [
        {"s": [[1]], "w": 0.5, "k": 12, "p": 2},
        {"s": [[1, "x"]], "w": 0.5, "k": 12, "p": 2},
        {"s": "abc", "w": 0.5, "k": 12, "p": 2},
        {"s": [], "w": "0.5", "k": 12, "p": 2},
        {"s": [], "w": 0.5},
        {"s": [], "t": "x" * 500_000, "w": 0.5, "k": 12, "p": 2},  # small as a link, large once inflated
    ],
)
def test_a_forged_link_says_so(pad: Page, forged: dict[str, object]) -> None:
    fragment = pad.evaluate(
        """async (text) => {
          const deflated = new Blob([text]).stream().pipeThrough(new CompressionStream("deflate-raw"));
          const bytes = new Uint8Array(await new Response(deflated).arrayBuffer());
          return "#q1." + btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
        }""",
        json.dumps(forged),
    )
    pad.evaluate("(fragment) => { location.hash = fragment }", fragment)
    expect(pad.locator("#toast")).to_have_text("This link is damaged: ask for it again.")


def test_a_category_that_is_not_there_is_asked_for_all_the_same(pad: Page) -> None:
    sketched(pad, ARC)
    foreign = _query([[[0.2, 0.2], [0.8, 0.8]]]).replace('"category": ""', '"category": "x"')
    fragment = pad.evaluate(TO_FRAGMENT, foreign)
    open_it = "(fragment) => { location.hash = fragment }"
    body = asked(pad, lambda: pad.evaluate(open_it, fragment), lambda body: "category" in body)
    assert body["category"] == "x" == pad.input_value("#category")
