"""Searching by a picture: chosen, pasted or dropped, and by a photo of the gallery."""

import base64
import io
import mimetypes
import re
from collections import Counter
from collections.abc import Callable

import pytest
from PIL import Image
from playwright.sync_api import Page, Request, Route, expect

from serve.messages import Query
from tests.serve.conftest import encoded
from tests.serve.web.conftest import LocalSearcher
from tests.serve.web.hand import ARC, asked, draw

TURNED = 6  # EXIF orientation: lies on its side, a quarter turn clockwise puts it upright
TRANSFER = """([data, name, type]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  return transfer;
}"""


@pytest.fixture
def turned() -> bytes:
    """A JPEG of a camera held sideways: stored as 400 x 200, its left half red, which belongs on top."""
    picture = Image.new("RGB", (400, 200), "white")
    picture.paste("red", (0, 0, 200, 200))
    exif = Image.Exif()
    exif[0x0112] = TURNED
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", exif=exif, quality=95)
    return buffer.getvalue()


def choose(page: Page, name: str, data: bytes) -> None:
    """As a person does in the dialog of the button."""
    kind = mimetypes.guess_type(name)[0] or ""
    page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": data})


def searched_by(
    page: Page, searcher: LocalSearcher, act: Callable[[], object], size: tuple[int, int]
) -> Image.Image:
    """The picture of that size that reaches the server once `act()` is done."""
    received: list[Image.Image] = []

    async def receive(query: Query) -> None:
        received.extend([Image.open(io.BytesIO(query.sketch))] if query.sketch else [])

    searcher.before = receive
    act()
    for _ in range(100):
        for picture in received:
            if picture.size == size:
                return picture
        page.wait_for_timeout(50)
    pytest.fail(f"no picture of {size}, but of {[picture.size for picture in received]}")


def test_a_picture_is_sent_upright_without_what_its_camera_wrote(
    pad: Page, searcher: LocalSearcher, turned: bytes
) -> None:
    sent = searched_by(pad, searcher, lambda: choose(pad, "boot.jpg", turned), (200, 400))
    assert not sent.getexif()
    top, bottom = (sent.convert("RGB").getpixel((100, y)) for y in (50, 350))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[0] > 200 > 60 > top[1]
    assert min(bottom) > 240
    expect(pad.locator("#shown")).to_have_text("boot.jpg")
    expect(pad.locator(".hit")).to_have_count(12)


def test_a_picture_gives_way_to_a_drawing_and_comes_back(
    pad: Page, searcher: LocalSearcher, turned: bytes
) -> None:
    before = searched_by(pad, searcher, lambda: choose(pad, "boot.jpg", turned), (200, 400))
    assert len(asked(pad, lambda: draw(pad, ARC))["sketch"]) == 1
    expect(pad.locator("#shown")).to_be_hidden()
    after = searched_by(pad, searcher, lambda: pad.click("#undo"), (200, 400))
    assert after.tobytes() == before.tobytes()
    expect(pad.locator("#shown")).to_have_text("boot.jpg")


def test_what_is_transparent_is_paper_and_what_is_huge_is_made_smaller(
    pad: Page, searcher: LocalSearcher
) -> None:
    clear = encoded(Image.new("RGBA", (3000, 1500), (0, 0, 0, 0)))
    sent = searched_by(pad, searcher, lambda: choose(pad, "clear.png", clear), (1024, 512)).convert("RGB")
    assert sent.getextrema() == ((255, 255), (255, 255), (255, 255))


@pytest.mark.parametrize(
    "event",
    [
        "new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true })",
        "new ClipboardEvent('paste', { clipboardData: dataTransfer, bubbles: true })",
    ],
)
def test_a_picture_can_be_dropped_and_pasted(
    pad: Page, searcher: LocalSearcher, sketch: bytes, event: str
) -> None:
    data = base64.b64encode(sketch).decode()
    transfer = pad.evaluate_handle(TRANSFER, [data, "circle.png", "image/png"])
    dispatch = f"(dataTransfer) => void document.body.dispatchEvent({event})"
    sent = searched_by(pad, searcher, lambda: pad.evaluate(dispatch, transfer), (256, 256))
    assert sent.convert("L").tobytes() == Image.open(io.BytesIO(sketch)).tobytes()


def test_too_large_is_told_before_anything_is_sent(pad: Page, sketch: bytes) -> None:
    def small(route: Route) -> None:
        known = route.fetch().json()
        known["limits"]["body_bytes"] = 4500
        route.fulfill(json=known)

    pad.route("**/v1/info", small)
    pad.reload()
    expect(pad.locator("#gallery")).to_contain_text("photos")
    searches: list[Request] = []
    pad.on("request", lambda request: searches.append(request) if "search" in request.url else None)
    noise = encoded(Image.effect_noise((300, 300), 80))
    choose(pad, "noise.png", noise)
    expect(pad.locator("#toast")).to_contain_text("noise.png is too large")
    expect(pad.locator("#invitation")).to_be_visible()
    pad.wait_for_timeout(400)
    assert searches == []


@pytest.mark.parametrize("name", ["words.txt", "fake.png"])
def test_what_is_no_picture_is_told(pad: Page, name: str) -> None:
    choose(pad, name, b"not a picture")
    expect(pad.locator("#toast")).to_contain_text("PNG, JPEG and WebP can")


def test_an_empty_place_for_a_missing_thumbnail(pad: Page) -> None:
    pad.route("**/v1/photos/**", lambda route: route.fulfill(status=404))
    pad.fill("#words", "a disc")
    expect(pad.locator(".hit .frame").first).to_have_text("no picture")


def test_a_thumbnail_that_a_full_server_kept_back_comes_later(pad: Page) -> None:
    tries = Counter[str]()

    def full_at_first(route: Route) -> None:
        tries[route.request.url] += 1
        if tries[route.request.url] <= 2:
            route.fulfill(status=429, headers={"Retry-After": "1"})
        else:
            route.continue_()

    pad.route("**/v1/photos/**", full_at_first)
    pad.fill("#words", "a disc")
    expect(pad.locator(".hit img.there")).to_have_count(12)
    assert set(tries.values()) == {3}


def test_more_like_this(pad: Page, searcher: LocalSearcher) -> None:
    pad.fill("#words", "a disc")
    pad.locator(".hit").nth(2).click()
    title = pad.inner_text("#large-title")
    name = title if title in searcher.ids else searcher.ids[searcher.texts.index(title)]
    body = asked(pad, lambda: pad.click("#large-like"))
    assert body == {"photo_id": name, "text": "a disc", "sketch_weight": 0.5, "k": 12}
    expect(pad.locator("#large")).to_be_hidden()
    expect(pad.locator("#shown")).to_have_text(f"Photos like {name}")
    expect(pad.locator(".hit", has_text=title)).to_have_count(0)  # it is its own nearest
    pad.click("#share")
    expect(pad).to_have_url(re.compile("#q1"))
    shared = pad.url
    pad.goto("about:blank")
    assert asked(pad, lambda: pad.goto(shared), lambda body: "photo_id" in body)["photo_id"] == name


def test_more_like_the_one_in_focus(pad: Page) -> None:
    pad.fill("#words", "a disc")
    pad.locator(".hit").nth(1).focus()
    assert "photo_id" in asked(pad, lambda: pad.keyboard.press("m"), lambda body: "photo_id" in body)
    pad.keyboard.press("Control+Z")
    expect(pad.locator("#shown")).to_be_hidden()


def test_more_like_this_is_offered_only_where_the_server_can(pad: Page) -> None:
    def older(route: Route) -> None:
        route.fulfill(json={**route.fetch().json(), "queries": ["sketch", "text"]})

    pad.route("**/v1/info", older)
    pad.reload()
    expect(pad.locator("#gallery")).to_contain_text("photos")
    pad.fill("#words", "a disc")
    pad.locator(".hit").first.click()
    expect(pad.locator("#large-like")).to_be_hidden()
    pad.keyboard.press("m")
    expect(pad.locator("#large")).to_be_visible()
    pad.keyboard.press("Escape")
    pad.keyboard.press("m")
    pad.wait_for_timeout(400)
    expect(pad.locator("#shown")).to_be_hidden()
    pad.keyboard.press("?")
    expect(pad.locator("#keys dd", has_text="More like")).to_be_hidden()
