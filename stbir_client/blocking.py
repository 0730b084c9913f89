"""The blocking client: AsyncClient on an event loop in a background thread.

Both clients share one implementation with exact deadlines. The thread makes it work in a notebook, where
another event loop runs.
"""

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from stbir_client.client import AsyncClient
from stbir_client.service import DEADLINE_S, RETRIES

P = ParamSpec("P")
T = TypeVar("T")


class BackgroundLoop:
    """An event loop in a thread, which runs coroutines for other threads until it is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stbir-client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of the coroutine. An interrupt of the caller (Ctrl-C) cancels it."""
        if not self._thread.is_alive():
            coroutine.close()
            raise RuntimeError("this client is closed, or was created before a fork; create another")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self, cleanup: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Cancel running coroutines, run `cleanup` and stop the thread. Further calls do nothing."""
        if self._thread.is_alive():
            self.run(_cancel_others())
            self.run(cleanup())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _blocking(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[Client, P], T]":
    """The blocking version of a method of AsyncClient."""

    @functools.wraps(method)
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(method(self._client, *args, **kwargs))

    return call


class Client:
    """Blocking client with the methods of AsyncClient. It is thread-safe."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        deadline: float = DEADLINE_S,
        retries: int = RETRIES,
        gallery: str | None = None,
    ) -> None:
        self._client = AsyncClient(url, key=key, deadline=deadline, retries=retries, gallery=gallery)
        self._loop = BackgroundLoop()

    search = _blocking(AsyncClient.search)
    explain = _blocking(AsyncClient.explain)
    thumbnail = _blocking(AsyncClient.thumbnail)
    info = _blocking(AsyncClient.info)

    def close(self) -> None:
        """Cancel pending calls, close the connections and stop the background thread."""
        self._loop.close(self._client.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
