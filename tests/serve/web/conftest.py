"""The sketch pad in Chromium, with an endpoint in this process: real encoders and HTTP, no Ray."""

import operator
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright

from serve.http.api import create_app
from serve.messages import LargePhoto, Query, SearchResult
from serve.problem import Problem
from serve.settings import read_settings
from stbir.embedding.embed import embed_photos, embed_sketches, embed_texts
from stbir.embedding.explanation import Explanation
from stbir.errors import InputError
from stbir.gallery.arrays import Features
from stbir.gallery.filters import OPS, Op, filterable_columns, render_filter
from stbir.model import checkpoint
from tests.client.conftest import serve_app
from tests.serve.conftest import Photos

CHROMIUM = shutil.which("chromium")
# Path of axe.min.js, from `npm pack axe-core`: https://github.com/dequelabs/axe-core
AXE = os.environ.get("STBIR_AXE", "")
# No sandbox, which containers do not allow, and no requests to other hosts.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
COMPARISONS: dict[Op, Callable[[Any, Any], bool]] = {
    **{op: getattr(operator, op) for op in OPS if op != "in"},
    "in": lambda value, values: value in values,
}
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("photo_id", "category", "content", "text"), pa.string()),
        "price": pa.float64(),
        "stock": pa.int64(),
        "used": pa.bool_(),
        "since": pa.timestamp("us"),
    }
)
DESKTOP = ViewportSize(width=1200, height=820)
PHONE = ViewportSize(width=390, height=844)


async def _search_at_once(query: Query) -> None:
    """The default of `LocalBackend.before`."""


def metadata(index: int) -> dict[str, Any]:
    """The catalogue's columns of the photo at this index."""
    return {"price": index / 2, "stock": index, "used": index % 4 == 0, "since": f"2026-01-{index + 1:02d}"}


class LocalBackend:
    """Exact search with the encoders of a checkpoint. `before` is awaited before each search."""

    def __init__(self, uri: str, photos: Photos) -> None:
        self.digest = checkpoint.read_digest(uri)
        self.photo_encoder = checkpoint.load(uri, part="photo")
        self.sketch_encoder = checkpoint.load(uri, part="sketch")
        self.text_encoder = checkpoint.load(uri, part="text")
        values = zip(photos.ids, photos.categories, photos.texts, photos.images, strict=True)
        names = ("photo_id", "category", "text", "image")
        self.rows = [
            {**dict(zip(names, row, strict=True)), **metadata(index)} for index, row in enumerate(values)
        ]
        self.vectors_ND = photos.vectors
        self.version = 1
        self.links: dict[str, str] = {}
        self.before: Callable[[Query], Awaitable[None]] = _search_at_once

    def add(self, category: str, images: dict[str, bytes]) -> None:
        """Publish another version with more photos, by id."""
        self.rows = self.rows + [
            {"photo_id": photo_id, "category": category, "text": None, "image": image}
            for photo_id, image in images.items()
        ]
        vectors_ND = embed_photos(self.photo_encoder, list(images.values()))
        self.vectors_ND = np.concatenate([self.vectors_ND, vectors_ND])
        self.version += 1

    def align_with_text(self, photo_id: str, text: str) -> None:
        """Move the vector of a photo towards a text, as training would."""
        index = [row["photo_id"] for row in self.rows].index(photo_id)
        vector_D = self.vectors_ND[index] + embed_texts(self.text_encoder, [text])[0]
        self.vectors_ND = self.vectors_ND.copy()
        self.vectors_ND[index] = vector_D / np.linalg.norm(vector_D)

    async def search(self, query: Query) -> SearchResult:
        await self.before(query)
        try:
            render_filter(query.where, SCHEMA)
        except InputError as error:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        sum_D = np.sum(list(self._weighted_vectors(query)), axis=0)
        scores_N = self.vectors_ND @ (sum_D / np.linalg.norm(sum_D))
        order = [index for index in np.argsort(-scores_N) if _matches(self.rows[index], query)]
        names = ("photo_id", "category", "text")
        hits = [
            {"score": float(scores_N[index]), **{name: self.rows[index][name] for name in names}}
            for index in order[: query.k]
        ]
        return SearchResult(hits, self.digest, self.version)

    def _weighted_vectors(self, query: Query) -> Iterator[Features]:
        """The vectors (D,) of the parts of a query, times their weights."""
        if query.sketch:
            yield embed_sketches(self.sketch_encoder, [query.sketch])[0] * query.sketch_weight
        if query.photo_id:
            index = [row["photo_id"] for row in self.rows].index(query.photo_id)
            yield self.vectors_ND[index] * query.sketch_weight
        if query.text:
            yield embed_texts(self.text_encoder, [query.text])[0] * (1 - query.sketch_weight)

    async def explain(self, query: Query, photo_id: str) -> Explanation:
        raise Problem(HTTPStatus.NOT_IMPLEMENTED, "tests of it use the real application")

    async def thumbnail(self, photo_id: str) -> bytes:
        return next((row["image"] for row in self.rows if row["photo_id"] == photo_id), b"")

    async def large_photo(self, photo_id: str) -> LargePhoto:
        return LargePhoto(await self.thumbnail(photo_id), self.links.get(photo_id))

    def info(self) -> dict[str, Any]:
        examples = [{name: row[name] for name in ("photo_id", "category", "text")} for row in self.rows[:6]]
        gallery = {
            "name": "shapes",
            "examples": examples,
            "version": self.version,
            "count": len(self.rows),
            "categories": sorted({row["category"] for row in self.rows}),
            "columns": {name: str(data_type) for name, data_type in filterable_columns(SCHEMA).items()},
        }
        return {"model": {"checkpoint": self.digest}, "gallery": gallery}

    async def ready(self) -> dict[str, Any]:
        return {}


def _matches(row: dict[str, Any], query: Query) -> bool:
    """Whether a row meets the filters; a missing value meets none."""
    if query.category not in (None, row["category"]) or query.photo_id == row["photo_id"]:
        return False
    values = ((row.get(each.column), each) for each in query.where)
    return all(value is not None and COMPARISONS[each.op](value, each.value) for value, each in values)


@pytest.fixture(scope="session")
def shared_backend(checkpoint_uri: str, photos: Photos) -> LocalBackend:
    return LocalBackend(checkpoint_uri, photos)


@pytest.fixture(scope="session")
def url(shared_backend: LocalBackend) -> Iterator[str]:
    """The URL of the pad."""
    with serve_app(create_app(shared_backend, read_settings().limits)) as url:
        yield url


@pytest.fixture
def backend(shared_backend: LocalBackend) -> Iterator[LocalBackend]:
    """The backend of the pad; its changes are undone after the test."""
    state = dict(vars(shared_backend))
    yield shared_backend
    vars(shared_backend).update(state)


@pytest.fixture(scope="module")  # Playwright keeps an event loop running in this thread: not for other tests
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed; run apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    with chromium.new_context(viewport=DESKTOP) as context:
        yield context


@pytest.fixture(params=[(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark")], ids=str)
def view(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[BrowserContext]:
    """Desktop and phone, light and dark, without animations."""
    size, scheme = request.param
    options = {"has_touch": size == PHONE, "is_mobile": size == PHONE, "reduced_motion": "reduce"}
    with chromium.new_context(viewport=size, color_scheme=scheme, **options) as context:
        yield context


FindViolations = Callable[[Page], list[tuple[str, list[Any]]]]


@pytest.fixture
def find_violations() -> FindViolations:
    """Runs axe-core on a page; the rules that it violates, each with the elements."""
    if not AXE:
        pytest.skip("axe-core is missing; set STBIR_AXE to axe.min.js of `npm pack axe-core`")

    def find(page: Page) -> list[tuple[str, list[Any]]]:
        page.evaluate(Path(AXE).read_text())
        violations = page.evaluate("axe.run()")["violations"]
        return [(rule["id"], [node["target"] for node in rule["nodes"]]) for rule in violations]

    return find


def collect_errors(page: Page) -> list[str]:
    """The console messages and exceptions of the page from now on, without those of failed requests."""
    errors: list[str] = []

    def add(message: Any) -> None:
        if not message.text.startswith("Failed to load resource"):
            errors.append(message.text)

    page.on("console", add)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors


def open_pad(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#gallery")).to_contain_text("photos")
    return page


@pytest.fixture
def pad(context: BrowserContext, url: str, backend: LocalBackend) -> Iterator[Page]:
    """The pad on a desktop. A console message or an exception of the page fails the test."""
    page = context.new_page()
    errors = collect_errors(page)
    page.goto(url)
    expect(page.locator("#gallery")).to_contain_text("photos")
    yield page
    page.close()
    assert errors == []
