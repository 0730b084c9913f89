"""The pad with galleries by name: a choice between those that the user may open."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import BrowserContext, Page, expect

from serve.http.api import create_app
from serve.http.api_keys import ApiKeys, new_key
from serve.http.auth import ApiKeyAuth
from serve.settings import read_settings
from tests.client.conftest import serve_app
from tests.serve.conftest import Photos
from tests.serve.web.conftest import LocalBackend, collect_errors


@pytest.fixture(scope="module")
def shoes(checkpoint_uri: str, photos: Photos) -> LocalBackend:
    """A gallery of the first five photos, with other ids."""
    few = {name: value[:5] for name, value in vars(photos).items()}
    return LocalBackend(checkpoint_uri, replace(photos, **{**few, "ids": [f"shoe/{n}" for n in range(5)]}))


@pytest.fixture(scope="module")
def two_galleries(shared_backend: LocalBackend, shoes: LocalBackend) -> Iterator[str]:
    app = create_app(shared_backend, read_settings().limits, galleries={"shoes": shoes})
    with serve_app(app) as url:
        yield url


def choice(page: Page) -> list[str]:
    return page.locator("#gallery-choice option").all_text_contents()


def test_an_endpoint_with_one_gallery_shows_no_choice(pad: Page) -> None:
    expect(pad.locator("#gallery-choice")).to_be_hidden()


def test_the_choice_opens_another_gallery_which_the_address_keeps(
    context: BrowserContext, two_galleries: str
) -> None:
    page = context.new_page()
    errors = collect_errors(page)
    page.goto(two_galleries)
    expect(page.locator("#count")).to_have_text("24 photos")
    assert choice(page) == ["default", "shoes"]
    page.select_option("#gallery-choice", "shoes")
    expect(page.locator("#count")).to_have_text("5 photos")
    page.fill("#text", "a disc")
    expect(page.locator(".hit img.loaded")).to_have_count(5)
    page.wait_for_url(f"{two_galleries}/?gallery=shoes#*")
    page.reload()
    expect(page.locator(".hit img.loaded")).to_have_count(5)
    page.fill("#text", "")
    page.wait_for_url(f"{two_galleries}/?gallery=shoes")
    page.select_option("#gallery-choice", "default")
    expect(page.locator("#count")).to_have_text("24 photos")
    assert page.url == f"{two_galleries}/"
    assert errors == []


def app_with_keys(backend: LocalBackend, shoes: LocalBackend, keys: Path) -> FastAPI:
    auth = ApiKeyAuth(ApiKeys(str(keys)))
    return create_app(backend, read_settings().limits, auth, galleries={"shoes": shoes})


def test_a_key_of_another_gallery_leads_to_it(
    context: BrowserContext, shared_backend: LocalBackend, shoes: LocalBackend, tmp_path: Path
) -> None:
    secret, line = new_key("me", None, ["shoes"])
    (tmp_path / "keys").write_text(line)
    with serve_app(app_with_keys(shared_backend, shoes, tmp_path / "keys")) as url:
        page = context.new_page()
        page.goto(url)
        page.fill("#key-field", secret)
        page.keyboard.press("Enter")
        expect(page.locator("#message")).to_contain_text("'default' is not available")
        page.select_option("#gallery-choice", "shoes")
        expect(page.locator("#count")).to_have_text("5 photos")
