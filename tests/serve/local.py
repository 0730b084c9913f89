"""The application without Ray: the real ingress and replicas in this process, over ASGI."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from fastapi import FastAPI

from serve.deployments.ingress import Searcher
from serve.deployments.local_handle import LocalHandle
from serve.deployments.replicas import FusionReplica, SketchReplica, TextReplica
from serve.http.api import create_app
from serve.rollout.app_status import AppStatus, AppStatusWatch
from serve.rollout.records import ReleaseRecords
from serve.rollout.rollout import Rollout
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


RUNNING = AppStatus(1.0, frozenset({"SketchReplica", "TextReplica", "FusionReplica"}))


def application(checkpoint_uri: str, gallery_uri: str) -> FastAPI:
    """The application with default settings, without Ray."""
    settings, records = read_settings(), ReleaseRecords(MemoryStore())
    sketch = LocalHandle(SketchReplica, settings.sketch.batching, records)
    text = LocalHandle(TextReplica, settings.text.batching, records)
    fusion = LocalHandle(FusionReplica, records)
    rollout = Rollout(sketch, text, fusion, records, AppStatusWatch(lambda: RUNNING))
    searcher = Searcher(sketch, text, fusion, rollout, settings)
    asyncio.run(rollout.start({"checkpoint": checkpoint_uri, "gallery": gallery_uri}))
    return create_app(searcher, settings.limits)


@contextmanager
def serve_application(checkpoint_uri: str, gallery_uri: str) -> Iterator[str]:
    """Serve the application; yields its URL, which is also that of its pad."""
    with ThreadPoolExecutor(1) as thread:  # the event loop of Playwright runs in the thread of the tests
        app = thread.submit(application, checkpoint_uri, gallery_uri).result()
    with serve_app(app) as url:
        yield url
