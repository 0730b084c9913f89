"""Search by an image (file, paste or drop) and by a photo of the gallery."""

import base64
import io
import mimetypes
from collections import Counter
from collections.abc import Callable
from urllib.parse import unquote

import pytest
from PIL import Image
from playwright.sync_api import Page, Request, Route, expect

from serve.messages import Query
from tests.serve.conftest import encode_image
from tests.serve.web.actions import ARC, draw, search_after, search_by_stroke
from tests.serve.web.conftest import LocalBackend

EXIF_ORIENTATION, ROTATE_CLOCKWISE = 0x0112, 6
CREATE_TRANSFER = """([data, name, type]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  return transfer;
}"""


@pytest.fixture
def rotated_jpeg() -> bytes:
    """A JPEG of 400 x 200 pixels with EXIF orientation. Upright, its top half is red."""
    image = Image.new("RGB", (400, 200), "white")
    image.paste("red", (0, 0, 200, 200))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = ROTATE_CLOCKWISE
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif, quality=95)
    return buffer.getvalue()


def select_file(page: Page, name: str, data: bytes) -> None:
    media_type = mimetypes.guess_type(name)[0] or ""
    page.set_input_files("#file", {"name": name, "mimeType": media_type, "buffer": data})


def received_image(
    page: Page, backend: LocalBackend, action: Callable[[], object], size: tuple[int, int]
) -> Image.Image:
    """The image of that size that reaches the server after the action."""
    images: list[Image.Image] = []

    async def collect(query: Query) -> None:
        images.extend([Image.open(io.BytesIO(query.sketch))] if query.sketch else [])

    backend.before = collect
    action()
    for _ in range(100):
        for image in images:
            if image.size == size:
                return image
        page.wait_for_timeout(50)
    pytest.fail(f"no image of {size}, only {[image.size for image in images]}")


def test_image_is_sent_upright_without_metadata(
    pad: Page, backend: LocalBackend, rotated_jpeg: bytes
) -> None:
    image = received_image(pad, backend, lambda: select_file(pad, "boot.jpg", rotated_jpeg), (200, 400))
    assert not image.getexif()
    top, bottom = (image.convert("RGB").getpixel((100, y)) for y in (50, 350))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[0] > 200 > 60 > top[1]
    assert min(bottom) > 240
    expect(pad.locator("#image-name")).to_have_text("boot.jpg")
    expect(pad.locator(".hit")).to_have_count(24)


def test_drawing_replaces_an_image_and_undo_restores_it(
    pad: Page, backend: LocalBackend, rotated_jpeg: bytes
) -> None:
    image = received_image(pad, backend, lambda: select_file(pad, "boot.jpg", rotated_jpeg), (200, 400))
    assert len(search_after(pad, lambda: draw(pad, ARC))["sketch"]) == 1
    expect(pad.locator("#image-name")).to_be_hidden()
    restored = received_image(pad, backend, lambda: pad.click("#undo"), (200, 400))
    assert restored.tobytes() == image.tobytes()
    expect(pad.locator("#image-name")).to_have_text("boot.jpg")


def test_image_is_resized_and_stays_transparent(pad: Page, backend: LocalBackend) -> None:
    """White ink without paper is lost on white."""
    chalk = Image.new("RGBA", (3000, 1500), (255, 255, 255, 0))
    chalk.paste((255, 255, 255, 255), (1000, 500, 2000, 1000))
    select = lambda: select_file(pad, "chalk.png", encode_image(chalk))  # noqa: E731
    image = received_image(pad, backend, select, (1024, 512))
    assert [image.getpixel(at) for at in ((9, 9), (500, 250))] == [(0, 0, 0, 0), (255, 255, 255, 255)]


@pytest.mark.parametrize(
    "event",
    [
        "new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true })",
        "new ClipboardEvent('paste', { clipboardData: dataTransfer, bubbles: true })",
    ],
)
def test_image_can_be_dropped_and_pasted(pad: Page, backend: LocalBackend, sketch: bytes, event: str) -> None:
    data = base64.b64encode(sketch).decode()
    transfer = pad.evaluate_handle(CREATE_TRANSFER, [data, "circle.png", "image/png"])
    dispatch = f"(dataTransfer) => void document.body.dispatchEvent({event})"
    image = received_image(pad, backend, lambda: pad.evaluate(dispatch, transfer), (256, 256))
    assert image.convert("L").tobytes() == Image.open(io.BytesIO(sketch)).tobytes()


def test_too_large_image_is_not_sent(pad: Page) -> None:
    def lower_limit(route: Route) -> None:
        info = route.fetch().json()
        info["limits"]["body_bytes"] = 4500
        route.fulfill(json=info)

    pad.route("**/v1/info", lower_limit)
    pad.reload()
    expect(pad.locator("#gallery")).to_contain_text("photos")
    searches: list[Request] = []
    pad.on("request", lambda request: searches.append(request) if "search" in request.url else None)
    select_file(pad, "noise.png", encode_image(Image.effect_noise((300, 300), 80)))
    expect(pad.locator("#toast")).to_contain_text("noise.png is too large")
    expect(pad.locator("#placeholder")).to_be_visible()
    assert search_after(pad, lambda: pad.fill("#text", "a disc")) == {"text": "a disc", "k": 24}
    assert len(searches) == 1


def test_file_that_is_no_image_is_refused(pad: Page) -> None:
    for name, reason in (
        ("words.txt", "This is not an image."),
        ("fake.png", "fake.png cannot be read as an"),
    ):
        select_file(pad, name, b"not an image")
        expect(pad.locator("#toast")).to_contain_text(reason)
        expect(pad.locator("#toast")).to_contain_text("Use a PNG, JPEG or WebP file.")


def test_missing_thumbnail_has_a_placeholder(pad: Page) -> None:
    pad.route("**/v1/photos/**", lambda route: route.fulfill(status=404))
    pad.fill("#text", "a disc")
    expect(pad.locator(".hit .frame").first).to_have_text("no thumbnail")


def test_thumbnails_are_retried_while_the_server_is_full(pad: Page) -> None:
    attempts = Counter[str]()

    def fail_twice(route: Route) -> None:
        attempts[route.request.url] += 1
        if attempts[route.request.url] <= 2:
            route.fulfill(status=429, headers={"Retry-After": "1"})
        else:
            route.continue_()

    pad.route("**/v1/photos/**", fail_twice)
    pad.fill("#text", "a disc")
    expect(pad.locator(".hit img.loaded")).to_have_count(24)
    assert set(attempts.values()) == {3}


def test_more_like_this(pad: Page, backend: LocalBackend) -> None:
    pad.fill("#text", "a disc")
    pad.locator(".hit").nth(2).click()
    title = pad.inner_text("#lightbox-title")
    photo_id = next(row["photo_id"] for row in backend.rows if title in (row["text"], row["photo_id"]))
    body = search_after(pad, lambda: pad.click("#lightbox-similar"))
    assert body == {"photo_id": photo_id, "text": "a disc", "sketch_weight": 0.5, "k": 24}
    expect(pad.locator("#lightbox")).to_be_hidden()
    expect(pad.locator("#image-name")).to_have_text(f"Similar to {photo_id}")
    expect(pad.locator(".hit", has_text=title)).to_have_count(0)  # the photo itself is excluded
    pad.click("#share")
    expect(pad.locator("#toast")).not_to_be_empty()
    link = pad.url
    pad.goto("about:blank")
    body = search_after(pad, lambda: pad.goto(link), lambda body: "photo_id" in body)
    assert body["photo_id"] == photo_id


def test_leaving_more_like_this_restores_the_drawing(pad: Page) -> None:
    """Also after a chain of photos."""
    sketch = search_by_stroke(pad, ARC)["sketch"]
    for _ in range(2):
        pad.locator(".hit").first.click()
        search_after(pad, lambda: pad.click("#lightbox-similar"), lambda body: "photo_id" in body)
        expect(pad.locator(".hit")).to_have_count(23)
    search = search_after(pad, lambda: pad.click("#remove-image"), lambda body: "sketch" in body)
    assert search["sketch"] == sketch
    assert "photo_id" not in search
    expect(pad.locator("#query-image")).to_be_hidden()


def test_lightbox_has_the_link_of_the_catalogue(pad: Page, backend: LocalBackend) -> None:
    pad.fill("#text", "a disc")
    expect(pad.locator(".hit")).to_have_count(24)
    pad.locator(".hit").first.click()
    expect(pad.locator("#lightbox img.loaded")).to_be_visible()
    expect(pad.locator("#lightbox-link")).to_be_hidden()
    backend.links = {row["photo_id"]: f"https://shop.example/{row['photo_id']}" for row in backend.rows}
    with pad.expect_request(lambda request: request.url.endswith("?size=large")) as large:
        pad.keyboard.press("ArrowRight")
    photo_id = unquote(large.value.url).removesuffix("?size=large").partition("/photos/")[2]
    expect(pad.locator("#lightbox-link")).to_have_attribute("href", f"https://shop.example/{photo_id}")
    expect(pad.locator("#lightbox-facts")).to_contain_text(photo_id)


def test_more_like_the_focused_result(pad: Page) -> None:
    pad.fill("#text", "a disc")
    pad.locator(".hit").nth(1).focus()
    assert "photo_id" in search_after(pad, lambda: pad.keyboard.press("m"), lambda body: "photo_id" in body)
    pad.keyboard.press("Control+Z")
    expect(pad.locator("#image-name")).to_be_hidden()


def test_more_like_this_is_hidden_if_unsupported(pad: Page) -> None:
    def remove_photo_id(route: Route) -> None:
        route.fulfill(json={**route.fetch().json(), "queries": ["sketch", "text"]})

    pad.route("**/v1/info", remove_photo_id)
    pad.reload()
    expect(pad.locator("#gallery")).to_contain_text("photos")
    pad.fill("#text", "a disc")
    pad.locator(".hit").first.click()
    expect(pad.locator("#lightbox-similar")).to_be_hidden()
    pad.keyboard.press("m")
    expect(pad.locator("#lightbox")).to_be_visible()
    pad.keyboard.press("Escape")
    pad.keyboard.press("m")
    text_search = search_after(pad, lambda: pad.fill("#text", "a box"), lambda body: body["text"] == "a box")
    assert "photo_id" not in text_search
    expect(pad.locator("#image-name")).to_be_hidden()
    pad.locator("h1").click()
    pad.keyboard.press("?")
    expect(pad.locator("#shortcut-list dd", has_text="Use the focused")).to_be_hidden()
