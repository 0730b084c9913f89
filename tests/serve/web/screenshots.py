"""Takes the screenshots of the documentation: desktop and phone, light and dark.

    python -m tests.serve.web.screenshots http://127.0.0.1:8000 docs/pad

The endpoint serves the gallery of `make demo`, which contains only generated images.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.serve.web.conftest import ARGUMENTS, CHROMIUM, open_pad

TEXT = "teal wooden lamp, white zigzag"
SIZES = {"desk": ViewportSize(width=1200, height=800), "phone": ViewportSize(width=390, height=844)}
PHONE_RESULTS = 6  # to keep the image of the phone short


def take_screenshots(browser: Browser, url: str, out: Path) -> list[Path]:
    """Write a PNG per size and colour scheme, as `desk-light.png`; returns their paths."""
    out.mkdir(parents=True, exist_ok=True)
    return [
        _take_screenshot(browser, url, size, is_dark, out / f"{size}-{'dark' if is_dark else 'light'}.png")
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
    page.get_by_role("button", name="Lamp").click()
    with page.expect_response(lambda response: TEXT in (response.request.post_data or "")):
        page.fill("#text", TEXT)
    if is_dark:
        _add_filter(page)
    if is_phone:
        _set_result_count(page, PHONE_RESULTS)
    expect(page.locator(".hit img.loaded").first).to_be_visible()
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    if is_phone:
        _fit_height(page)
    else:
        page.locator(".hit").first.hover()
    path.write_bytes(_quantize(page.screenshot()))
    context.close()
    return path


def _add_filter(page: Page) -> None:
    page.click("#filters summary")
    page.click("#add-filter")
    page.get_by_label("Column").select_option("category")
    page.get_by_label("Operator").select_option("ne")
    with page.expect_response(lambda response: '"where"' in (response.request.post_data or "")):
        page.get_by_role("textbox", name="Value").fill("jar")


def _set_result_count(page: Page, count: int) -> None:
    page.click("#options summary")
    page.fill("#k", str(count))
    page.click("#options summary")
    expect(page.locator(".hit img.loaded")).to_have_count(count)


def _fit_height(page: Page) -> None:
    """Extend the viewport to the results: Chromium renders full-page screenshots without touch emulation."""
    bottom = page.locator("#hits").evaluate("(hits) => hits.getBoundingClientRect().bottom + scrollY")
    page.set_viewport_size({"width": SIZES["phone"]["width"], "height": round(bottom) + 16})
    page.evaluate("scrollTo(0, 0)")


def _quantize(png: bytes) -> bytes:
    """Reduce to 256 colours, a third of the bytes."""
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for file in take_screenshots(chromium, sys.argv[1], Path(sys.argv[2])):
            print(f"{file}: {file.stat().st_size} bytes")
