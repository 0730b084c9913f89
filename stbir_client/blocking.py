"""The client for everyone else: the asynchronous one, on an event loop of its own.

So there is one implementation, deadlines hold to the millisecond however slowly bytes trickle in, and it
works in a notebook, where a loop is running already.
"""

import functools
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from stbir_client.client import AsyncClient
from stbir_client.loop import Loop
from stbir_client.service import DEADLINE_S, RETRIES

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[Client, P], T]":
    """A method of AsyncClient that returns when it is done."""

    @functools.wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.wait(method(self._client, *args, **kwargs))

    return call


class Client:
    """As AsyncClient, but its methods return when they are done. Threads may share one."""

    def __init__(
        self, url: str, *, key: str | None = None, deadline: float = DEADLINE_S, retries: int = RETRIES
    ) -> None:
        self._client = AsyncClient(url, key=key, deadline=deadline, retries=retries)
        self._loop = Loop()

    search = _blocking(AsyncClient.search)
    thumbnail = _blocking(AsyncClient.thumbnail)
    info = _blocking(AsyncClient.info)

    def close(self) -> None:
        """End the calls of other threads, the connections, and the thread of this client."""
        self._loop.close(self._client.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
