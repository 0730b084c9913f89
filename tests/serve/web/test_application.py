"""The pad of the shipped application: draw, type, enlarge a result."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.serve.web.actions import ARC, search_by_stroke
from tests.serve.web.conftest import DESKTOP, PHONE, collect_errors


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, chromium: Browser, endpoint: httpx.Client) -> Iterator[Page]:
    size: ViewportSize = request.param
    page = chromium.new_page(viewport=size)
    errors = collect_errors(page)
    page.goto(str(endpoint.base_url))
    expect(page.locator("#gallery")).to_contain_text("24 photos")
    yield page
    page.close()
    assert errors == []


def test_drawing_and_text_give_results(page: Page) -> None:
    search_by_stroke(page, ARC)
    with page.expect_response(lambda response: "a red disc" in (response.request.post_data or "")):
        page.fill("#text", "a red disc")
    expect(page.locator(".hit img.loaded")).to_have_count(24)
    expect(page.locator("#message")).to_contain_text("24 results in")
    with page.expect_response("**/*?size=large") as large:
        page.locator(".hit img").nth(1).click()
    assert large.value.status == 200
    expect(page.locator("#lightbox-facts")).to_contain_text("2 of 24")
    page.keyboard.press("Escape")
    page.fill("#text", "a " * 70)
    expect(page.locator("#message")).to_contain_text("70 words exceed the limit of 64")
