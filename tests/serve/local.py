"""The application without Ray: the real ingress and replicas in this process, over ASGI."""

import asyncio
import inspect
from typing import Any

from fastapi import FastAPI

from serve.deployments.ingress import Searcher
from serve.deployments.replicas import FusionReplica, SketchReplica, TextReplica
from serve.http.api import create_app
from serve.settings import read_settings


class Handle:
    """Calls a replica as a Serve handle does: arguments are awaited, plain methods run in threads."""

    def __init__(self, replica: Any) -> None:
        self.replica = replica

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
    settings = read_settings()
    searcher = Searcher(
        Handle(SketchReplica(settings.sketch.batching)),
        Handle(TextReplica(settings.text.batching)),
        Handle(FusionReplica()),
        settings.limits,
        settings.ingress.coalescing,
    )
    asyncio.run(searcher.rollout.start({"checkpoint": checkpoint_uri, "gallery": gallery_uri}))
    return create_app(searcher, settings.limits)
