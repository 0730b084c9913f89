"""The pad in Chromium, before an endpoint in this process: real towers and HTTP, no Ray."""

import asyncio
import operator
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright

from serve.http.api import create_app
from serve.messages import Found, Query
from serve.problem import Problem
from serve.settings import read_settings
from stbir.embedding.embed import embed_photos, embed_sketches, embed_texts
from stbir.gallery.arrays import Features
from stbir.model import checkpoint
from tests.conftest import free_port, wait_until

CHROMIUM = shutil.which("chromium")
# In a container: no sandbox of its own, and not a byte to anybody but the endpoint.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    **{name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "in": lambda value, wanted: value in wanted,
}
COLUMNS = {
    "photo_id": "string",
    "category": "string",
    "content": "string",
    "text": "string",
    "price": "double",
    "stock": "int64",
    "used": "bool",
    "since": "timestamp[us]",
}
DESK = ViewportSize(width=1200, height=820)
PHONE = ViewportSize(width=390, height=844)


async def _at_once(query: Query) -> None:
    """Nothing happens before a search."""


def fact(place: int) -> dict[str, Any]:
    """What the catalogue tells of the photo at this place."""
    since = f"2026-01-{place + 1:02d}"
    return {"price": place / 2, "stock": place, "used": place % 4 == 0, "since": since}


class LocalSearcher:
    """Searches photos with the towers of a checkpoint. `before` runs ahead of every search of a test."""

    def __init__(self, uri: str, photos: Any) -> None:
        self.digest = checkpoint.read_digest(uri)
        self.photo = checkpoint.load(uri, part="photo")
        self.sketch = checkpoint.load(uri, part="sketch")
        self.text = checkpoint.load(uri, part="text")
        self.ids, self.categories = list(photos.ids), list(photos.categories)
        self.pictures, self.vectors_ND = list(photos.pictures), photos.vectors
        self.texts = list(photos.texts)
        self.facts = [fact(place) for place in range(len(self.ids))]
        self.version = 1
        self.before: Callable[[Query], Awaitable[None]] = _at_once

    def add(self, category: str, pictures: dict[str, bytes]) -> None:
        """More photos, by id: another version."""
        self.ids += pictures
        self.categories += [category] * len(pictures)
        self.pictures += pictures.values()
        self.texts += [None] * len(pictures)
        self.facts += [{}] * len(pictures)
        self.vectors_ND = np.concatenate([self.vectors_ND, embed_photos(self.photo, list(pictures.values()))])
        self.version += 1

    def describe(self, photo_id: str, words: str) -> None:
        """Let a photo be as near to these words as to its own drawing, as training would."""
        place = self.ids.index(photo_id)
        vector_D = self.vectors_ND[place] + embed_texts(self.text, [words])[0]
        self.vectors_ND[place] = vector_D / np.linalg.norm(vector_D)

    async def search(self, query: Query) -> Found:
        await self.before(query)
        total_D = np.sum(list(self._vectors(query)), axis=0)
        scores_N = self.vectors_ND @ (total_D / np.linalg.norm(total_D))
        hits = [self._hit(row, scores_N) for row in np.argsort(-scores_N) if self._wanted(row, query)]
        return Found(hits[: query.k], self.digest, self.version)

    def _hit(self, row: int, scores_N: Features) -> dict[str, Any]:
        told = {"category": self.categories[row], "text": self.texts[row]}
        return {"photo_id": self.ids[row], "score": float(scores_N[row]), **told}

    def _wanted(self, row: int, query: Query) -> bool:
        """As a gallery has it: a photo without a value meets no condition."""
        facts = {"photo_id": self.ids[row], "category": self.categories[row], **self.facts[row]}
        for place, each in enumerate(query.where):
            if each.column not in COLUMNS:
                there = f"there is no {each.column!r}; there is {', '.join(COLUMNS)}"
                raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"where.{place}.column: {there}")
        met = all(
            each.column in facts and COMPARE[each.op](facts[each.column], each.value) for each in query.where
        )
        return met and query.category in (None, facts["category"]) and facts["photo_id"] != query.photo_id

    def _vectors(self, query: Query) -> Iterator[Features]:
        """What there is of a query, each (D,) times its weight."""
        if query.sketch:
            yield embed_sketches(self.sketch, [query.sketch])[0] * query.sketch_weight
        if query.photo_id:
            yield self.vectors_ND[self.ids.index(query.photo_id)] * query.sketch_weight
        if query.text:
            yield embed_texts(self.text, [query.text])[0] * (1 - query.sketch_weight)

    async def thumbnail(self, photo_id: str) -> bytes:
        return self.pictures[self.ids.index(photo_id)] if photo_id in self.ids else b""

    def info(self) -> dict[str, Any]:
        categories = sorted(set(self.categories))
        gallery = {"version": self.version, "count": len(self.ids), "categories": categories}
        return {"model": {"checkpoint": self.digest}, "gallery": {**gallery, "columns": COLUMNS}}

    async def ready(self) -> dict[str, Any]:
        return {}


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The address where an application is served meanwhile."""
    port = free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        wait_until(lambda: server.started, "the start of the endpoint")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


@pytest.fixture(scope="module")
def served(checkpoint_uri: str, photos: Any) -> Iterator[tuple[LocalSearcher, str]]:
    """A searcher, and the address where it is served."""
    searcher = LocalSearcher(checkpoint_uri, photos)
    with serving(create_app(searcher, read_settings().limits)) as url:
        yield searcher, url


@pytest.fixture
def searcher(served: tuple[LocalSearcher, str]) -> Iterator[LocalSearcher]:
    """The searcher behind `pad`."""
    yield served[0]
    served[0].before = _at_once


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context(viewport=DESK)
    yield context
    context.close()


def listened(page: Page) -> list[str]:
    """What the page complains of from now on: errors, and whatever its policy forbids.

    The browser logs every refused request, which is no fault of the page.
    """
    complaints: list[str] = []

    def heard(message: Any) -> None:
        if not message.text.startswith("Failed to load resource"):
            complaints.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


def opened(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#gallery")).to_contain_text("photos")
    return page


@pytest.fixture
def pad(
    context: BrowserContext, served: tuple[LocalSearcher, str], searcher: LocalSearcher
) -> Iterator[Page]:
    """The pad, opened on a desk; whatever it complains of fails the test."""
    page = context.new_page()
    complaints = listened(page)
    page.goto(served[1])
    expect(page.locator("#gallery")).to_contain_text("photos")
    yield page
    page.close()
    assert complaints == []
