"""Searching as one draws and types: what comes back, and what is said where nothing does."""

import asyncio
import re
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Page, Route, expect

from serve.http.api import create_app
from serve.http.api_keys import Keys, new_key
from serve.http.auth import WithKeys
from serve.messages import Query
from serve.problem import Problem
from serve.settings import read_settings
from stbir.images import encode_png, render_strokes
from tests.serve.web.conftest import LocalSearcher, serving
from tests.serve.web.hand import ARC, asked, draw, sketched

ABORT_DOES_NOTHING = "void (AbortController.prototype.abort = () => {})"


def test_the_photo_that_was_drawn_comes_first(pad: Page, searcher: LocalSearcher) -> None:
    """The examples are in the gallery as well; the untrained sketch tower is a copy of the photo tower."""
    examples: list[dict[str, Any]] = pad.evaluate("import('/web/examples.js').then((m) => m.EXAMPLES)")
    drawings = {example["name"]: encode_png(render_strokes(example["strokes"])) for example in examples}
    assert len(drawings) >= 5
    searcher.add("drawing", drawings)
    for stroke in examples[1]["strokes"]:
        draw(pad, [(x, y) for x, y in stroke])
    expect(pad.locator(".hit").first).to_contain_text(examples[1]["name"])
    name, words = examples[1]["name"], examples[1]["words"]
    searcher.describe(name, words)
    assert asked(pad, lambda: pad.fill("#words", words))["text"] == words
    expect(pad.locator(".hit").first).to_contain_text(name)
    expect(pad.locator(".hit .score").first).to_have_text("1.000")
    expect(pad.locator("#gallery")).to_contain_text(f"version {searcher.version}")
    expect(pad.locator("#category")).to_contain_text("drawing")


def test_an_example_draws_its_shape_and_types_its_words(pad: Page) -> None:
    expect(pad.locator(".example")).to_have_count(6)
    body = asked(pad, lambda: pad.locator(".example").first.click())
    assert len(body["sketch"]) > 5
    assert body["text"] == pad.input_value("#words") != ""
    expect(pad.locator(".hit")).to_have_count(12)
    expect(pad.locator(".example").first).to_be_hidden()


def test_words_category_number_and_balance(pad: Page) -> None:
    body = asked(pad, lambda: pad.fill("#words", " a red disc "))
    assert body == {"text": "a red disc", "k": 12}
    expect(pad.locator("#balance")).to_be_disabled()
    assert asked(pad, lambda: pad.select_option("#category", "disc"))["category"] == "disc"
    assert asked(pad, lambda: pad.fill("#k", "3"))["k"] == 3
    expect(pad.locator(".hit")).to_have_count(3)
    expect(pad.locator(".hit .line")).to_contain_text(["disc", "disc", "disc"])
    assert sketched(pad, ARC)["sketch_weight"] == 0.5
    assert asked(pad, lambda: pad.fill("#balance", "80"))["sketch_weight"] == 0.8
    expect(pad.locator("#balance")).to_have_attribute("aria-valuetext", "80 % sketch, 20 % words")


def test_a_score_shows_where_the_mouse_is(pad: Page) -> None:
    pad.fill("#words", "a disc")
    caption = pad.locator(".hit .caption").nth(1)
    expect(caption).to_have_css("opacity", "0")
    pad.locator(".hit").nth(1).hover()
    expect(caption).to_have_css("opacity", "1")
    assert abs(float(caption.locator(".score").inner_text())) <= 1


def place_with(searcher: LocalSearcher, pad: Page, told: bool) -> tuple[int, str, str | None]:
    """The first hit of which the catalogue does or does not tell a text: its place, id and text."""
    with pad.expect_response("**/v1/search") as answer:
        pad.fill("#words", "a disc")
    hits = answer.value.json()["hits"]
    place = next(place for place, hit in enumerate(hits) if (hit["text"] is not None) == told)
    photo_id = hits[place]["photo_id"]
    assert searcher.texts[searcher.ids.index(photo_id)] == hits[place]["text"]
    return place, photo_id, hits[place]["text"]


def test_the_text_of_a_photo_shows_on_hover_in_focus_and_large(pad: Page, searcher: LocalSearcher) -> None:
    place, photo_id, text = place_with(searcher, pad, told=True)
    hit = pad.locator(".hit").nth(place)
    expect(hit.locator(".caption")).to_have_css("opacity", "0")
    hit.hover()
    expect(hit.locator(".caption")).to_have_css("opacity", "1")
    expect(hit.locator(".words")).to_have_text(text or "")
    pad.mouse.move(0, 0)
    hit.focus()
    expect(hit.locator(".caption")).to_have_css("opacity", "1")
    score = hit.locator(".score").inner_text()
    expect(hit).to_have_accessible_name(re.compile(rf"^{place + 1} (box|disc) {score} {text}$"))
    pad.keyboard.press("Enter")
    expect(pad.locator("#large-title")).to_have_text(text or "")
    expect(pad.locator("#large img")).to_have_attribute("alt", text or "")
    expect(pad.locator("#large-facts")).to_contain_text(photo_id)


def test_a_photo_without_a_text_shows_its_id(pad: Page, searcher: LocalSearcher) -> None:
    place, photo_id, _ = place_with(searcher, pad, told=False)
    expect(pad.locator(".hit .words").nth(place)).to_have_text(photo_id)
    pad.locator(".hit").nth(place).click()
    expect(pad.locator("#large-title")).to_have_text(photo_id)
    expect(pad.locator("#large img")).to_have_attribute("alt", f"Photo {photo_id}")


def test_a_text_that_changed_is_shown_as_it_is_now(pad: Page, searcher: LocalSearcher) -> None:
    place, photo_id, text = place_with(searcher, pad, told=True)
    expect(pad.locator(".hit .words").nth(place)).to_have_text(text or "")
    at = searcher.ids.index(photo_id)
    searcher.texts[at] = "other words"
    with pad.expect_response("**/v1/search"):
        pad.fill("#k", "20")
    expect(pad.locator(".hit .words").nth(place)).to_have_text("other words")
    searcher.texts[at] = text


def test_photos_that_stay_keep_their_element(pad: Page) -> None:
    pad.fill("#words", "a disc")
    expect(pad.locator(".hit")).to_have_count(12)
    pad.evaluate("document.querySelectorAll('.hit').forEach((hit) => (hit.dataset.old = 1))")
    asked(pad, lambda: pad.fill("#k", "24"))
    expect(pad.locator(".hit")).to_have_count(24)
    assert pad.locator(".hit[data-old]").count() == 12


def test_the_newest_answer_wins(context: BrowserContext, pad: Page, searcher: LocalSearcher) -> None:
    async def late(query: Query) -> None:
        await asyncio.sleep(1.5 if query.text == "late" else 0)

    searcher.before = late
    pad.evaluate(ABORT_DOES_NOTHING)  # so that the late answer does arrive
    asked(pad, lambda: pad.fill("#words", "late"))
    with pad.expect_response(lambda response: "late" in (response.request.post_data or "")):
        pad.fill("#k", "3")
        pad.fill("#words", "early")
        expect(pad.locator(".hit")).to_have_count(3)
    pad.wait_for_timeout(100)
    expect(pad.locator(".hit")).to_have_count(3)


def test_what_is_out_of_date_is_called_off(pad: Page, searcher: LocalSearcher) -> None:
    async def late(query: Query) -> None:
        await asyncio.sleep(5 if query.text == "late" else 0)

    searcher.before = late
    asked(pad, lambda: pad.fill("#words", "late"))
    with pad.expect_event("requestfailed") as failed:
        pad.fill("#words", "early")
    assert failed.value.failure == "net::ERR_ABORTED"
    expect(pad.locator(".hit")).to_have_count(12)


def test_full_is_said_and_searched_again_after_the_time_named(pad: Page, searcher: LocalSearcher) -> None:
    times: list[float] = []

    async def full_at_first(query: Query) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS, "all places are taken; try again in 2 s", {"Retry-After": "2"}
            )

    searcher.before = full_at_first
    pad.fill("#words", "a disc")
    expect(pad.locator("#message")).to_have_text("All places are taken.")
    expect(pad.locator("#countdown")).to_have_text("Searching again in 2 s")
    pad.fill("#words", "a red disc")  # does not make it impatient
    expect(pad.locator(".hit")).to_have_count(12)
    assert len(times) == 2
    assert times[1] - times[0] >= 1.9


def test_a_fault_is_shown_and_can_be_tried_again(pad: Page, searcher: LocalSearcher) -> None:
    async def broken(query: Query) -> None:
        raise Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "this is a fault of the server")

    searcher.before = broken
    pad.fill("#words", "a disc")
    expect(pad.locator("#message")).to_have_text(re.compile(r"This is a fault of the server\. .* \w{32}\."))

    async def mended(query: Query) -> None:
        pass

    searcher.before = mended
    pad.click("#retry")
    expect(pad.locator(".hit")).to_have_count(12)
    expect(pad.locator("#retry")).to_be_hidden()


def test_a_wrong_field_is_told_in_the_words_of_the_server(pad: Page) -> None:
    pad.fill("#words", "a " * 70)
    expect(pad.locator("#message")).to_contain_text("70 words are more than 64")


def test_slow_is_said(pad: Page, searcher: LocalSearcher) -> None:
    async def slow(query: Query) -> None:
        await asyncio.sleep(3)

    searcher.before = slow
    pad.fill("#words", "a disc")
    expect(pad.locator("#results")).to_have_attribute("aria-busy", "true")
    expect(pad.locator("#message")).to_have_text("Still searching …")
    expect(pad.locator("#message")).to_contain_text("12 photos")


def test_no_photo_that_fits(pad: Page) -> None:
    answer = {"hits": [], "gallery_version": 1, "checkpoint": "", "timing_ms": {"total": 1}}
    pad.route("**/v1/search", lambda route: route.fulfill(json=answer))
    pad.fill("#words", "a disc")
    expect(pad.locator("#message")).to_contain_text("No photo fits")


def test_offline_and_back(context: BrowserContext, pad: Page) -> None:
    context.set_offline(True)
    pad.fill("#words", "a disc")
    expect(pad.locator("#message")).to_have_text("You are offline.")
    context.set_offline(False)
    expect(pad.locator(".hit")).to_have_count(12)


def test_a_key_is_asked_for_and_kept_for_the_tab_alone(
    context: BrowserContext, searcher: LocalSearcher, tmp_path: Path
) -> None:
    secret, line = new_key("me", None)
    (tmp_path / "keys").write_text(line)
    app = create_app(searcher, read_settings().limits, WithKeys(Keys(str(tmp_path / "keys"))))
    with serving(app) as url:
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#key")).to_be_visible()
        expect(page.locator("#key-refused")).to_be_hidden()
        page.keyboard.press("Escape")
        page.fill("#words", "a disc")
        page.fill("#key-field", "wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-refused")).to_be_visible()
        page.fill("#key-field", secret)
        page.keyboard.press("Enter")
        expect(page.locator(".hit img.there")).to_have_count(12)  # pictures too are fetched with the key
        page.locator(".hit").first.click()
        expect(page.locator("#large img.there")).to_be_visible()
        page.keyboard.press("Escape")
        assert page.evaluate("sessionStorage.length") == 1
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        page.click("#change-key")
        page.click("text=Forget it")
        expect(page.locator("#message")).to_contain_text("valid key")
        assert page.evaluate("sessionStorage.length") == 0


def test_who_may_not_ask_is_told_so(pad: Page) -> None:
    problem = {"title": "Forbidden", "status": 403, "detail": "only this machine is answered"}
    pad.route("**/v1/**", lambda route: route.fulfill(status=403, json=problem))
    pad.reload()
    expect(pad.locator("#message")).to_have_text("Only this machine is answered.")
    pad.unroute("**/v1/**")
    pad.click("#retry")
    expect(pad.locator("#gallery")).to_contain_text("photos")
    expect(pad.locator("#message")).to_contain_text("Draw a shape")


def test_an_endpoint_without_a_gallery_says_so(pad: Page) -> None:
    def empty(route: Route) -> None:
        route.fulfill(json={**route.fetch().json(), "gallery": None})

    pad.route("**/v1/info", empty)
    pad.reload()
    expect(pad.locator("#gallery")).to_have_text("no gallery yet")
    expect(pad.locator("#message")).to_contain_text("nothing to search")
