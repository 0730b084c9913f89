"""Takes the screenshots of the documentation: desk, wide screen and phone, light and dark.

    python -m tests.serve.web.screenshots http://127.0.0.1:8000 docs/pad

The endpoint serves the gallery of `make demo`, which contains only generated images.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.serve.web.actions import open_fragment, to_fragment
from tests.serve.web.conftest import ARGUMENTS, CHROMIUM, open_pad

QUALITY = 82  # of WebP: text stays sharp at a third of the bytes of PNG
TEXT = "teal wooden lamp, white zigzag"
SIZES = {
    "desk": ViewportSize(width=1280, height=800),
    "wide": ViewportSize(width=1920, height=1080),
    "phone": ViewportSize(width=390, height=844),
}


def take_screenshots(browser: Browser, url: str, out: Path) -> list[Path]:
    """Write a WebP per size and colour scheme, as `desk-light.webp`; returns their paths."""
    out.mkdir(parents=True, exist_ok=True)
    return [
        _take_screenshot(browser, url, size, is_dark, out / f"{size}-{'dark' if is_dark else 'light'}.webp")
        for size in SIZES
        for is_dark in (False, True)
    ]


def _take_screenshot(browser: Browser, url: str, size: str, is_dark: bool, path: Path) -> Path:
    is_phone = size == "phone"
    context = browser.new_context(
        viewport=SIZES[size],
        color_scheme="dark" if is_dark else "light",
        has_touch=is_phone,
        is_mobile=is_phone,
        reduced_motion="reduce",
    )
    page = open_pad(context, url)
    strokes = page.evaluate("import('/web/drawings.js').then((drawings) => drawings.DRAWINGS.lamp)")
    with page.expect_response(lambda response: TEXT in (response.request.post_data or "")):
        open_fragment(page, to_fragment(page, strokes, text=TEXT))
    if is_dark:
        _steer(page)
    expect(page.locator(".hit img.loaded")).to_have_count(24)
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.mouse.move(0, 0)
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(path, "WEBP", quality=QUALITY, method=6)
    context.close()
    return path


def _steer(page: Page) -> None:
    """Use a mark, a negative and a filter."""
    with page.expect_response(lambda response: '"like"' in (response.request.post_data or "")):
        page.locator("#hits .like").nth(1).click()
    page.fill("#without", "blue")
    page.keyboard.press("Enter")
    page.click("#open-filters")
    page.click("#add-filter")
    page.get_by_label("Column").select_option("category")
    page.get_by_label("Operator").select_option("ne")
    with page.expect_response(lambda response: '"where"' in (response.request.post_data or "")):
        page.get_by_role("textbox", name="Value").fill("jar")
    page.click("#close-filters")


if __name__ == "__main__":
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for file in take_screenshots(chromium, sys.argv[1], Path(sys.argv[2])):
            print(f"{file}: {file.stat().st_size} bytes")
