"""The pictures of docs/pad.md: the pad on a desk and on a phone, light and dark, with a query drawn by hand.

    python -m tests.serve.web.portraits http://127.0.0.1:8000 docs/pad

The endpoint is that of `make demo`: its gallery holds drawn pictures alone.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright

from tests.serve.web.conftest import ARGUMENTS, CHROMIUM
from tests.serve.web.hand import draw

WORDS = "teal wooden lamp, white zigzag"
EXAMPLE = "import('/web/examples.js').then((m) => m.EXAMPLES.find((each) => each.name === 'Lamp').strokes)"
SIZES = {"desk": ViewportSize(width=1200, height=800), "phone": ViewportSize(width=390, height=844)}
SCHEMES = ("light", "dark")
ON_A_PHONE = 6  # photos: as many as a picture of a phone has room for


def portraits(browser: Browser, url: str, out: Path) -> list[Path]:
    """Write `desk-light.png` and its three sisters; returns where they are."""
    out.mkdir(parents=True, exist_ok=True)
    return [_portrait(browser, url, out, size, scheme) for size in SIZES for scheme in SCHEMES]


def _portrait(browser: Browser, url: str, out: Path, size: str, scheme: str) -> Path:
    phone = size == "phone"
    context = browser.new_context(
        viewport=SIZES[size],
        color_scheme="dark" if scheme == "dark" else "light",
        has_touch=phone,
        is_mobile=phone,
        reduced_motion="reduce",
    )
    page, file = _asked(context, url, conditions=scheme == "dark"), out / f"{size}-{scheme}.png"
    if phone:
        _at_most(page, ON_A_PHONE)
        _lengthen(page)
    else:
        page.locator(".hit").first.hover()
    file.write_bytes(_small(page.screenshot()))
    context.close()
    return file


def _asked(context: BrowserContext, url: str, conditions: bool) -> Page:
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#gallery")).to_contain_text("photos")
    for stroke in page.evaluate(EXAMPLE):
        draw(page, [(x, y) for x, y in stroke])
    with page.expect_response(lambda answer: WORDS in (answer.request.post_data or "")):
        page.fill("#words", WORDS)
    if conditions:
        _conditioned(page)
    expect(page.locator(".hit img.there").first).to_be_visible()
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    return page


def _conditioned(page: Page) -> None:
    page.click("#conditions summary")
    page.click("#add-condition")
    page.get_by_label("Column").select_option("category")
    page.get_by_label("Comparison").select_option("ne")
    with page.expect_response(lambda answer: '"where"' in (answer.request.post_data or "")):
        page.get_by_role("textbox", name="Value").fill("jar")


def _at_most(page: Page, photos: int) -> None:
    page.locator("summary", has_text="Balance").click()
    page.fill("#k", str(photos))
    page.locator("summary", has_text="Balance").click()
    expect(page.locator(".hit img.there")).to_have_count(photos)


def _lengthen(page: Page) -> None:
    """A screen as long as what is on it: a picture beyond the screen forgets that fingers touch it."""
    bottom = page.locator("#hits").evaluate("(hits) => hits.getBoundingClientRect().bottom + scrollY")
    page.set_viewport_size({"width": SIZES["phone"]["width"], "height": round(bottom) + 16})
    page.evaluate("scrollTo(0, 0)")


def _small(png: bytes) -> bytes:
    """The picture in 256 colours: a third of the bytes, and nobody sees it."""
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256, kmeans=2).save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for made in portraits(chromium, sys.argv[1], Path(sys.argv[2])):
            print(f"{made}: {made.stat().st_size} bytes")
