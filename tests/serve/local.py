"""The application without Ray: the real ingress and replicas in this process, over ASGI."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
from fastapi import FastAPI

from serve.deployments.local_handle import LocalHandle
from serve.deployments.replicas import FusionReplica, SketchReplica, TextReplica
from serve.deployments.searcher import Searcher, searchers
from serve.galleries import DEFAULT_GALLERY
from serve.http.api import create_app
from serve.rollout.app_status import AppStatus, AppStatusWatch
from serve.rollout.records import ReleaseRecords
from serve.settings import read_settings
from tests.client.conftest import serve_app


class MemoryStore:
    """A store of release records in this process."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    def put(self, key: str, value: bytes, overwrite: bool) -> None:
        if overwrite or key not in self.values:
            self.values[key] = value

    def keys(self, prefix: str) -> list[str]:
        return [key for key in self.values if key.startswith(prefix)]


RUNNING = AppStatus(1.0, frozenset({"SketchReplica", "TextReplica", "FusionReplica", "FusionReplica_shoes"}))


def application(checkpoint_uri: str, gallery_uri: str, **galleries: str) -> FastAPI:
    """The application with default settings, without Ray. `galleries`: other URIs by name."""
    backends = local_searchers(checkpoint_uri, gallery_uri, **galleries)
    return create_app(backends[DEFAULT_GALLERY], read_settings().limits, galleries=backends)


def local_searchers(checkpoint_uri: str, gallery_uri: str, **galleries: str) -> dict[str, Searcher]:
    """The searcher of each gallery, with its release. They share the encoders."""
    settings, records = read_settings(), ReleaseRecords(MemoryStore())
    sketch = LocalHandle(SketchReplica, settings.sketch.batching, records)
    text = LocalHandle(TextReplica, settings.text.batching, records, settings.text.text_cache)
    names = (DEFAULT_GALLERY, *galleries)
    fusions = {name: LocalHandle(FusionReplica, records.of_gallery(name)) for name in names}
    watch = AppStatusWatch(lambda: RUNNING)
    backends = searchers(sketch, text, fusions, settings, records, watch)
    user_config = {
        "checkpoint": checkpoint_uri,
        "gallery": gallery_uri,
        "galleries": {name: {"gallery": uri} for name, uri in galleries.items()},
    }

    async def start() -> None:
        await asyncio.gather(*(each.rollout.start(user_config) for each in backends.values()))

    asyncio.run(start())
    return backends


async def request(app: Any, method: str, path: str, **kwargs: Any) -> httpx.Response:
    """The response of an ASGI application; an exception of it is a response too."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return await client.request(method, path, **kwargs)


def send(app: Any, method: str, path: str, **kwargs: Any) -> httpx.Response:
    """As `request`, outside an event loop."""
    return asyncio.run(request(app, method, path, **kwargs))


@contextmanager
def serve_application(checkpoint_uri: str, gallery_uri: str) -> Iterator[str]:
    """Serve the application; yields its URL, which is also that of its pad."""
    with ThreadPoolExecutor(1) as thread:  # the event loop of Playwright runs in the thread of the tests
        app = thread.submit(application, checkpoint_uri, gallery_uri).result()
    with serve_app(app) as url:
        yield url
