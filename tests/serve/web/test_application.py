"""The pad of the application as shipped: draw, type, look, make it large."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.serve.web.conftest import DESK, PHONE, listened
from tests.serve.web.hand import ARC, sketched


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def page(request: pytest.FixtureRequest, chromium: Browser, endpoint: httpx.Client) -> Iterator[Page]:
    size: ViewportSize = request.param
    page = chromium.new_page(viewport=size)
    complaints = listened(page)
    page.goto(str(endpoint.base_url))
    expect(page.locator("#gallery")).to_contain_text("24 photos")
    yield page
    page.close()
    assert complaints == []


def test_draw_type_and_see_hits(page: Page) -> None:
    sketched(page, ARC)
    with page.expect_response(lambda answer: "a red disc" in (answer.request.post_data or "")):
        page.fill("#words", "a red disc")
    expect(page.locator(".hit img.there")).to_have_count(12)
    expect(page.locator("#message")).to_contain_text("12 photos in")
    page.locator(".hit").nth(1).click()
    expect(page.locator("#large-facts")).to_contain_text("2 of 12")
    page.keyboard.press("Escape")
    page.fill("#words", "a " * 70)
    expect(page.locator("#message")).to_contain_text("70 words are more than 64")
