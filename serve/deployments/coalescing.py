"""Request coalescing: queued searches share one call, since a call between processes has a fixed cost."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from serve.deadline import Deadline
from serve.messages import Query, SearchResult
from serve.settings import Coalescing

SearchResults = Sequence[SearchResult | Exception]  # one a query, in order


@dataclass(frozen=True, eq=False)
class PendingQuery:
    """A queued query, its deadline, and the future of its hits."""

    query: Query
    deadline: Deadline
    result: asyncio.Future[SearchResult]

    @property
    def message(self) -> Query:
        """The query with the budget that is left."""
        return replace(self.query, budget_s=self.deadline.remaining_s)


class Coalescer:
    """Sends queries in groups; awaiting it with a query returns its hits or raises its error.

    `send` answers a group. A query is sent at once below `max_concurrent_groups`; otherwise it waits until a
    group returns or until `max_group_size` queries wait. A cancelled query leaves the queue at once. One
    whose deadline passes there raises DeadlineExceededError. Admission control bounds the queue.
    Not thread-safe: for one event loop.
    """

    def __init__(self, send: Callable[[list[Query]], Awaitable[SearchResults]], settings: Coalescing) -> None:
        self._send, self._settings = send, settings
        self._queue: dict[asyncio.Future[SearchResult], PendingQuery] = {}  # in order of arrival
        self._tasks = set[asyncio.Task[None]]()

    async def __call__(self, query: Query) -> SearchResult:
        """The hits of a query."""
        result: asyncio.Future[SearchResult] = asyncio.get_running_loop().create_future()
        self._queue[result] = PendingQuery(query, Deadline.after(query.budget_s), result)
        try:
            self._send_groups()
            return await result
        finally:
            self._queue.pop(result, None)

    def _send_groups(self) -> None:
        max_size, max_groups = self._settings.max_group_size, self._settings.max_concurrent_groups
        while self._queue and (len(self._tasks) < max_groups or len(self._queue) >= max_size):
            if group := self._take_group(max_size):
                self._start(group)

    def _take_group(self, max_size: int) -> list[PendingQuery]:
        """The queries at the head of the queue whose deadlines have not passed."""
        group = list(islice(self._queue.values(), max_size))
        for pending in group:
            del self._queue[pending.result]
            if error := pending.deadline.error():
                complete(pending.result, error)
        return [pending for pending in group if not pending.result.done()]

    def _start(self, group: list[PendingQuery]) -> None:
        task = asyncio.get_running_loop().create_task(self._run(group))
        self._tasks.add(task)
        task.add_done_callback(self._end)
        for pending in group:
            pending.result.add_done_callback(
                lambda _: all(each.result.cancelled() for each in group) and task.cancel()
            )

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._send_groups()

    async def _run(self, group: list[PendingQuery]) -> None:
        try:
            results = await self._send([pending.message for pending in group])
        except Exception as error:  # an error of the call is the error of each of its queries
            results = [error] * len(group)
        for pending, result in zip(group, results, strict=True):
            complete(pending.result, result)


def complete(future: asyncio.Future[Any], result: Any) -> None:
    """Set the result of a future, or its exception if `result` is one; no effect on a completed future."""
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
