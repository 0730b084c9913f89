"""The application without Ray: the real ingress and replicas in this process, over ASGI."""

import asyncio
import inspect
from collections.abc import Awaitable, Sequence
from typing import Any

from fastapi import FastAPI

from serve.deployments.ingress import Searcher
from serve.deployments.replicas import FusionReplica, SketchReplica, TextReplica
from serve.http.api import create_app
from serve.rollout.app_status import AppStatus, AppStatusWatch
from serve.rollout.records import ReleaseRecords
from serve.rollout.rollout import Rollout
from serve.settings import read_settings


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


class Broadcast:
    """The responses of all replicas."""

    def __init__(self, responses: Sequence[Awaitable[Any]]) -> None:
        self.responses = responses

    async def results_async(self, return_exceptions: bool = False) -> list[Any]:
        return await asyncio.gather(*self.responses, return_exceptions=return_exceptions)


class Handle:
    """Calls a replica as a Serve handle does: arguments are awaited, plain methods run in threads."""

    def __init__(self, replica: Any) -> None:
        self.replica = replica

    def broadcast(self, name: str, *args: Any) -> Broadcast:
        return Broadcast([getattr(self, name).remote(*args)])

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.replica, name)

        async def call(*args: Any) -> Any:
            values = [await arg if isinstance(arg, asyncio.Task) else arg for arg in args]
            if inspect.iscoroutinefunction(method):
                return await method(*values)
            return await asyncio.to_thread(method, *values)

        class Method:
            @staticmethod
            def remote(*args: Any) -> asyncio.Task[Any]:
                return asyncio.get_running_loop().create_task(call(*args))

        return Method


def application(checkpoint_uri: str, gallery_uri: str) -> FastAPI:
    """The application with default settings, without Ray."""
    settings, records = read_settings(), ReleaseRecords(MemoryStore())
    sketch = Handle(SketchReplica(settings.sketch.batching, records))
    text, fusion = Handle(TextReplica(settings.text.batching, records)), Handle(FusionReplica(records))
    rollout = Rollout(sketch, text, fusion, records, AppStatusWatch(lambda: RUNNING))
    searcher = Searcher(sketch, text, fusion, rollout, settings)
    asyncio.run(rollout.start({"checkpoint": checkpoint_uri, "gallery": gallery_uri}))
    return create_app(searcher, settings.limits)
