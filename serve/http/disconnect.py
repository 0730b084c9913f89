"""Client disconnects: work for a client that has hung up is cancelled, so that its place is free at once."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

T = TypeVar("T")
CLIENT_CLOSED_REQUEST = 499  # nginx's status for it; only the access log gets it


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. The body of `request` must have been read.

    Raises starlette's ClientDisconnect if the client hangs up first; `work` has then been cancelled.
    """
    task = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        disconnect.cancel()
        task.cancel()
        await asyncio.gather(task, disconnect, return_exceptions=True)


async def answer_disconnected(request: Request, error: Exception) -> Response:
    """The handler of ClientDisconnect: a response that no client receives, for the access log."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
