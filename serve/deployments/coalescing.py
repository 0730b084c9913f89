"""Request coalescing: queued searches share one call, since a call between processes has a fixed cost."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from serve.messages import Query, SearchResult
from serve.settings import Coalescing

SearchResults = Sequence[SearchResult | Exception]  # one a query, in order
PendingQuery = tuple[Query, asyncio.Future[SearchResult]]


class Coalescer:
    """Sends queries in groups; awaiting it with a query returns its hits or raises its error.

    `send` answers a group. A query is sent at once below `max_concurrent_groups`; otherwise it waits until a
    group returns or until `max_group_size` queries wait. Raises `queue_full()` if the queue is full.
    Not thread-safe: for one event loop.
    """

    def __init__(
        self,
        send: Callable[[list[Query]], Awaitable[SearchResults]],
        settings: Coalescing,
        queue_full: Callable[[], Exception],
    ) -> None:
        self._send, self._settings, self._queue_full = send, settings, queue_full
        self._queue: list[PendingQuery] = []
        self._tasks = set[asyncio.Task[None]]()

    async def __call__(self, query: Query) -> SearchResult:
        """The hits of a query."""
        if len(self._queue) >= self._settings.max_queued_searches:
            raise self._queue_full()
        result: asyncio.Future[SearchResult] = asyncio.get_running_loop().create_future()
        self._queue.append((query, result))
        self._send_groups()
        return await result

    def _send_groups(self) -> None:
        max_size, max_groups = self._settings.max_group_size, self._settings.max_concurrent_groups
        while self._queue and (len(self._tasks) < max_groups or len(self._queue) >= max_size):
            # Cancelled queries are dropped.
            group = [(query, result) for query, result in self._queue[:max_size] if not result.done()]
            del self._queue[:max_size]
            if group:
                self._start(group)

    def _start(self, group: list[PendingQuery]) -> None:
        task = asyncio.get_running_loop().create_task(self._run(group))
        self._tasks.add(task)
        task.add_done_callback(self._end)
        for _, result in group:
            result.add_done_callback(lambda _: all(r.cancelled() for _, r in group) and task.cancel())

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._send_groups()

    async def _run(self, group: list[PendingQuery]) -> None:
        try:
            results = await self._send([query for query, _ in group])
        except Exception as error:  # an error of the call is the error of each of its queries
            results = [error] * len(group)
        for (_, future), result in zip(group, results, strict=True):
            complete(future, result)


def complete(future: asyncio.Future[Any], result: Any) -> None:
    """Set the result of a future, or its exception if `result` is one; no effect on a completed future."""
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
