"""The application without Ray: its real ingress and replicas in this process, answering over ASGI."""

import asyncio
import inspect
from typing import Any

from fastapi import FastAPI

from serve.api import create_app
from serve.ingress import Searcher
from serve.replicas import FusionReplica, SketchReplica, TextReplica
from serve.settings import read_settings


class Handle:
    """Calls a replica as Serve's handles do: arguments are awaited first, plain methods run in threads."""

    def __init__(self, replica: Any) -> None:
        self.replica = replica

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.replica, name)

        async def call(*args: Any) -> Any:
            there = [await arg if isinstance(arg, asyncio.Task) else arg for arg in args]
            if inspect.iscoroutinefunction(method):
                return await method(*there)
            return await asyncio.to_thread(method, *there)

        class Method:
            @staticmethod
            def remote(*args: Any) -> asyncio.Task[Any]:
                return asyncio.get_running_loop().create_task(call(*args))

        return Method


def one_by_one(replica: Any) -> Any:
    """The same replica, in batches of one: Serve batches nowhere but inside a replica."""
    encoder = replica.encoder

    async def alone(item: Any) -> Any:
        [answer] = await encoder._beside_loop([item])
        if isinstance(answer, Exception):
            raise answer
        return answer

    encoder._queue = alone
    return replica


def application(checkpoint_uri: str, gallery_uri: str) -> FastAPI:
    """As shipped, but for Ray and batches."""
    settings = read_settings()
    searcher = Searcher(
        Handle(one_by_one(SketchReplica(settings.sketch.batching))),
        Handle(one_by_one(TextReplica(settings.text.batching))),
        Handle(FusionReplica()),
        settings.limits,
    )
    asyncio.run(searcher.changeover.to({"checkpoint": checkpoint_uri, "gallery": gallery_uri}))
    return create_app(searcher, settings.limits)
