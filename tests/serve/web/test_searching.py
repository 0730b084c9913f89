"""Search while drawing and typing: results, retries, and error messages."""

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import BrowserContext, Page, Route, expect

from serve.http.api import create_app
from serve.http.api_keys import ApiKeys, new_key
from serve.http.auth import ApiKeyAuth
from serve.messages import Query
from serve.problem import Problem
from serve.settings import read_settings
from stbir.images import encode_png, render_strokes
from tests.client.conftest import serve_app
from tests.serve.conftest import encode_image
from tests.serve.web.actions import ARC, draw, search_after, search_by_stroke, select_category
from tests.serve.web.conftest import LocalBackend

DISABLE_ABORT = "void (AbortController.prototype.abort = () => {})"


def delay(text: str, released: threading.Event) -> Callable[[Query], Awaitable[None]]:
    """Delays the searches for a text until the event is set, at most 5 s."""

    async def wait(query: Query) -> None:
        deadline = time.monotonic() + 5
        while query.text == text and not released.is_set() and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    return wait


def test_drawn_photo_is_the_top_hit(pad: Page, backend: LocalBackend) -> None:
    """The gallery contains the drawings. The untrained sketch encoder equals the photo encoder."""
    drawings: dict[str, Any] = pad.evaluate("import('/web/drawings.js').then((m) => m.DRAWINGS)")
    images = {name: encode_png(render_strokes(strokes)) for name, strokes in drawings.items()}
    assert len(images) >= 5
    backend.add("drawing", images)
    name, text = "chair", "dark wood, slatted back"
    for stroke in drawings[name]:
        draw(pad, [(x, y) for x, y in stroke])
    expect(pad.locator(".hit").first).to_contain_text(name)
    backend.align_with_text(name, text)
    assert search_after(pad, lambda: pad.fill("#text", text))["text"] == text
    expect(pad.locator(".hit").first).to_contain_text(name)
    expect(pad.locator(".hit .score").first).to_have_text("1.000")
    expect(pad.locator("#gallery")).to_have_text(f"shapes{len(backend.rows)} photos")
    expect(pad.locator("#category")).to_contain_text("drawing")


def set_examples(pad: Page, examples: list[dict[str, Any]]) -> None:
    def replace(route: Route) -> None:
        info = route.fetch().json()
        route.fulfill(json={**info, "gallery": {**info["gallery"], "examples": examples}})

    pad.route("**/v1/info", replace)
    pad.reload()
    expect(pad.locator(".example")).to_have_count(len(examples))


def test_example_sets_drawing_and_text(pad: Page) -> None:
    rows: list[dict[str, Any]] = [{"photo_id": str(n), "category": "Chairs", "text": "oak"} for n in range(2)]
    set_examples(pad, [*rows, {**rows[0], "category": "unknown", "text": None}])
    expect(pad.locator(".example svg")).to_have_count(1)  # the second chair is a photo
    body = search_after(pad, lambda: pad.locator(".example").first.click())
    assert len(body["sketch"]) > 5
    assert body["text"] == pad.input_value("#text") == "oak"
    expect(pad.locator(".hit")).to_have_count(24)
    expect(pad.locator(".example").first).to_be_hidden()


def test_examples_are_photos_of_the_gallery(pad: Page, backend: LocalBackend) -> None:
    expect(pad.locator(".example")).to_have_count(6)
    index = next(index for index, row in enumerate(backend.rows) if row["text"] is None)
    body = search_after(pad, lambda: pad.locator(".example").nth(index).click())
    assert body == {"photo_id": backend.rows[index]["photo_id"], "k": 24}


def test_text_category_and_weight(pad: Page) -> None:
    body = search_after(pad, lambda: pad.fill("#text", " a red disc "))
    assert body == {"text": "a red disc", "k": 24}
    expect(pad.locator("#weight")).to_be_disabled()
    assert search_after(pad, lambda: select_category(pad, "disc"))["category"] == "disc"
    expect(pad.locator(".hit .category")).to_have_text(["disc"] * 12)
    assert search_by_stroke(pad, ARC)["sketch_weight"] == 0.5
    assert search_after(pad, lambda: pad.fill("#weight", "80"))["sketch_weight"] == 0.8
    expect(pad.locator("#weight")).to_have_attribute("aria-valuetext", "80 % sketch, 20 % text")
    expect(pad.locator("#weight-value")).to_have_text("80 : 20")


def test_more_results_load_at_the_end_of_the_list(pad: Page, backend: LocalBackend) -> None:
    backend.add("noise", {f"noise/{n:03}": encode_image(Image.effect_noise((64, 64), n)) for n in range(96)})
    pad.reload()
    expect(pad.locator("#gallery")).to_contain_text("120 photos")
    assert search_after(pad, lambda: pad.fill("#text", "a disc"))["k"] == 24
    expect(pad.locator(".hit")).to_have_count(24)
    for k in (48, 72, 96, 100):  # the limit of the server
        assert search_after(pad, pad.locator("#more").scroll_into_view_if_needed)["k"] == k
        expect(pad.locator(".hit")).to_have_count(k)
    expect(pad.locator("#more")).to_be_hidden()
    expect(pad.locator("#end")).to_contain_text("the best 100")
    assert search_after(pad, lambda: pad.fill("#text", "a box"))["k"] == 24
    expect(pad.locator(".hit")).to_have_count(24)


def test_photo_is_shown_whole_in_its_tile(pad: Page) -> None:
    pad.fill("#text", "a disc")
    image = pad.locator(".hit img.loaded").first
    expect(image).to_have_css("object-fit", "contain")
    frame, box = pad.locator(".hit .frame").first.bounding_box(), image.bounding_box()
    assert frame is not None
    assert box is not None
    assert box["height"] <= frame["height"]


def search_for_hit(pad: Page, backend: LocalBackend, has_text: bool) -> tuple[int, dict[str, Any]]:
    """Search for "a disc"; index and row of the first hit with or without a text."""
    with pad.expect_response("**/v1/search") as response:
        pad.fill("#text", "a disc")
    hits = response.value.json()["hits"]
    index = next(index for index, hit in enumerate(hits) if (hit["text"] is not None) == has_text)
    row = next(row for row in backend.rows if row["photo_id"] == hits[index]["photo_id"])
    assert row["text"] == hits[index]["text"]
    return index, row


def test_rank_and_text_of_a_photo_are_beneath_it_and_enlarged(pad: Page, backend: LocalBackend) -> None:
    index, row = search_for_hit(pad, backend, has_text=True)
    hit = pad.locator(".hit").nth(index)
    frame, caption = hit.locator(".frame").bounding_box(), hit.locator(".caption").bounding_box()
    assert frame is not None
    assert caption is not None
    assert caption["y"] >= frame["y"] + frame["height"]
    expect(hit.locator(".text")).to_have_text(row["text"])
    expect(hit.locator(".rank")).to_have_text(str(index + 1))
    hit.focus()
    score = hit.locator(".score").inner_text()
    expect(hit).to_have_accessible_name(re.compile(rf"^{index + 1} (box|disc) {score} {row['text']}$"))
    pad.keyboard.press("Enter")
    expect(pad.locator("#lightbox-title")).to_have_text(row["text"])
    expect(pad.locator("#lightbox img")).to_have_attribute("alt", row["text"])
    expect(pad.locator("#lightbox-facts")).to_contain_text(row["photo_id"])


def test_photo_without_a_text_shows_its_id(pad: Page, backend: LocalBackend) -> None:
    index, row = search_for_hit(pad, backend, has_text=False)
    expect(pad.locator(".hit .text").nth(index)).to_have_text(row["photo_id"])
    pad.locator(".hit").nth(index).click()
    expect(pad.locator("#lightbox-title")).to_have_text(row["photo_id"])
    expect(pad.locator("#lightbox img")).to_have_attribute("alt", f"Photo {row['photo_id']}")


def test_changed_text_of_a_photo_is_updated(pad: Page, backend: LocalBackend) -> None:
    index, row = search_for_hit(pad, backend, has_text=True)
    expect(pad.locator(".hit .text").nth(index)).to_have_text(row["text"])
    backend.rows = [{**each, "text": "other text"} if each is row else each for each in backend.rows]
    with pad.expect_response("**/v1/search"):
        pad.keyboard.press("Enter")
    expect(pad.locator(".hit .text").nth(index)).to_have_text("other text")


def test_photos_in_consecutive_results_keep_their_element(pad: Page) -> None:
    pad.fill("#text", "a disc")
    expect(pad.locator(".hit")).to_have_count(24)
    pad.evaluate("document.querySelectorAll('.hit').forEach((hit) => (hit.dataset.old = 1))")
    search_after(pad, lambda: select_category(pad, "disc"))
    expect(pad.locator(".hit")).to_have_count(12)
    assert pad.locator(".hit[data-old]").count() == 12


def test_late_response_is_ignored(pad: Page, backend: LocalBackend) -> None:
    released = threading.Event()
    backend.before = delay("late", released)
    pad.evaluate(DISABLE_ABORT)  # so that the late response arrives
    search_after(pad, lambda: pad.fill("#text", "late"))
    with pad.expect_response(lambda response: "late" in (response.request.post_data or "")):
        pad.fill("#text", "early")
        select_category(pad, "disc")
        expect(pad.locator(".hit")).to_have_count(12)
        released.set()
    pad.wait_for_timeout(100)
    expect(pad.locator(".hit")).to_have_count(12)


def test_outdated_search_is_aborted(pad: Page, backend: LocalBackend) -> None:
    released = threading.Event()
    backend.before = delay("late", released)
    search_after(pad, lambda: pad.fill("#text", "late"))
    with pad.expect_event("requestfailed") as failed:
        pad.fill("#text", "early")
    released.set()
    assert failed.value.failure == "net::ERR_ABORTED"
    expect(pad.locator(".hit")).to_have_count(24)


def test_full_server_is_retried_after_retry_after(pad: Page, backend: LocalBackend) -> None:
    times: list[float] = []

    async def fail_once(query: Query) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            detail = "too many searches in flight; retry in 2 s"
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, detail, {"Retry-After": "2"})

    backend.before = fail_once
    pad.fill("#text", "a disc")
    expect(pad.locator("#message")).to_have_text("Too many searches in flight.")
    expect(pad.locator("#countdown")).to_have_text(re.compile(r"Retrying in [23] s"))
    pad.fill("#text", "a red disc")  # does not shorten the wait
    expect(pad.locator(".hit")).to_have_count(24)
    assert len(times) == 2
    assert times[1] - times[0] >= 1.9


def test_retries_grow_are_random_and_end(pad: Page) -> None:
    script = """async () => {
        const { Backoff } = await import("/web/backoff.js");
        const delays = () => { const b = new Backoff(); return [...Array(9)].map(() => b.next(1)); };
        const backoff = new Backoff();
        return [delays(), delays(), backoff.next(null), Array(9).fill(0).map(() => backoff.next(0)).at(-1)];
    }"""
    first, second, permanent, exhausted = pad.evaluate(script)
    assert (permanent, exhausted, first.pop(), second.pop()) == (None, None, None, None)
    assert first != second
    for attempt, delay in enumerate(first):
        assert 1 + 0.25 * 2**attempt <= delay <= 1 + 0.5 * 2**attempt


def test_a_full_server_is_no_longer_retried_after_several_attempts(pad: Page, backend: LocalBackend) -> None:
    num_searches, before = 0, backend.before

    async def fail(query: Query) -> None:
        nonlocal num_searches
        num_searches += 1
        raise Problem(
            HTTPStatus.TOO_MANY_REQUESTS, "too many searches in flight; retry", {"Retry-After": "1"}
        )

    backend.before = fail
    pad.clock.install()
    pad.fill("#text", "a disc")
    for _ in range(60):
        pad.clock.run_for(5_000)
        pad.wait_for_timeout(20)
    expect(pad.locator("#retry")).to_be_visible()
    assert num_searches == 9
    backend.before = before
    pad.click("#retry")
    pad.clock.run_for(1_000)
    expect(pad.locator(".hit")).to_have_count(24)


def test_server_error_has_a_retry_button(pad: Page, backend: LocalBackend) -> None:
    before = backend.before

    async def fail(query: Query) -> None:
        raise Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; see the log")

    backend.before = fail
    pad.fill("#text", "a disc")
    message = re.compile(r"Internal error; see the log\. Request ID: \w{32}\.")
    expect(pad.locator("#message")).to_have_text(message)
    backend.before = before
    pad.click("#retry")
    expect(pad.locator(".hit")).to_have_count(24)
    expect(pad.locator("#retry")).to_be_hidden()


def test_validation_error_of_the_server_is_displayed(pad: Page) -> None:
    pad.fill("#text", "a " * 70)
    expect(pad.locator("#message")).to_contain_text("70 words exceed the limit of 64")


def test_slow_search_is_announced(pad: Page, backend: LocalBackend) -> None:
    released = threading.Event()
    backend.before = delay("a disc", released)
    pad.fill("#text", "a disc")
    expect(pad.locator("#results")).to_have_attribute("aria-busy", "true")
    expect(pad.locator("#message")).to_have_text("Still searching …")
    released.set()
    expect(pad.locator("#message")).to_contain_text("24 results")


def test_message_without_hits(pad: Page) -> None:
    answer = {"hits": [], "gallery_version": 1, "checkpoint": "", "timing_ms": {"total": 1}}
    pad.route("**/v1/search", lambda route: route.fulfill(json=answer))
    pad.fill("#text", "a disc")
    expect(pad.locator("#message")).to_contain_text("No matching photos")


def test_search_resumes_after_being_offline(context: BrowserContext, pad: Page) -> None:
    context.set_offline(True)
    pad.fill("#text", "a disc")
    expect(pad.locator("#message")).to_have_text("You are offline.")
    context.set_offline(False)
    expect(pad.locator(".hit")).to_have_count(24)


def test_api_key_is_requested_and_stored_for_the_tab(
    context: BrowserContext, backend: LocalBackend, tmp_path: Path
) -> None:
    secret, line = new_key("me", None)
    (tmp_path / "keys").write_text(line)
    app = create_app(backend, read_settings().limits, ApiKeyAuth(ApiKeys(str(tmp_path / "keys"))))
    with serve_app(app) as url:
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#key")).to_be_visible()
        expect(page.locator("#key-rejected")).to_be_hidden()
        page.keyboard.press("Escape")
        page.fill("#text", "a disc")
        page.fill("#key-field", "wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-rejected")).to_be_visible()
        page.fill("#key-field", secret)
        page.keyboard.press("Enter")
        expect(page.locator(".hit img.loaded")).to_have_count(24)  # thumbnails need the key too
        page.locator(".hit").first.click()
        expect(page.locator("#lightbox img.loaded")).to_be_visible()
        page.keyboard.press("Escape")
        assert page.evaluate("sessionStorage.length") == 1
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        page.click("#change-key")
        page.click("text=Forget key")
        expect(page.locator("#message")).to_contain_text("API key is missing or wrong")
        assert page.evaluate("sessionStorage.length") == 0


def test_forbidden_request_is_explained(pad: Page) -> None:
    problem = {"title": "Forbidden", "status": 403, "detail": "only this machine is allowed"}
    pad.route("**/v1/**", lambda route: route.fulfill(status=403, json=problem))
    pad.reload()
    expect(pad.locator("#message")).to_have_text("Only this machine is allowed.")
    pad.unroute("**/v1/**")
    pad.click("#retry")
    expect(pad.locator("#gallery")).to_contain_text("photos")
    expect(pad.locator("#message")).to_contain_text("Draw what you")


def test_endpoint_without_a_gallery(pad: Page) -> None:
    def remove_gallery(route: Route) -> None:
        route.fulfill(json={**route.fetch().json(), "gallery": None})

    pad.route("**/v1/info", remove_gallery)
    pad.reload()
    expect(pad.locator("#gallery")).to_have_text("no gallery yet")
    expect(pad.locator("#message")).to_contain_text("nothing to search")
