"""Searches that come while others are under way go on together: a call between processes costs as much for
one search as for many."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from serve.messages import Found, Query
from serve.settings import Gathering

Answers = Sequence[Found | Exception]  # of each query, in order
Waiting = tuple[Query, asyncio.Future[Found]]


class Together:
    """Awaited with a query, gives its hits or raises what became of it.

    `send` takes a group of queries on. A query goes at once while fewer than `lanes` groups are under way,
    else with those that come before a lane is free, or before there are `most` of them. Raises what `full`
    makes where all places to wait are taken. For one thread: the event loop's.
    """

    def __init__(
        self,
        send: Callable[[list[Query]], Awaitable[Answers]],
        gathering: Gathering,
        full: Callable[[], Exception],
    ) -> None:
        self._send, self._gathering, self._full = send, gathering, full
        self._waiting: list[Waiting] = []
        self._under_way = set[asyncio.Task[None]]()

    async def __call__(self, query: Query) -> Found:
        """Its hits."""
        if len(self._waiting) >= self._gathering.places:
            raise self._full()
        place: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._waiting.append((query, place))
        self._depart()
        return await place

    def _depart(self) -> None:
        most = self._gathering.most
        while self._waiting and (len(self._under_way) < self._gathering.lanes or len(self._waiting) >= most):
            # Whoever has gone meanwhile is asked for no more.
            group = [each for each in self._waiting[:most] if not each[1].done()]
            del self._waiting[:most]
            if group:
                self._start(group)

    def _start(self, group: list[Waiting]) -> None:
        task = asyncio.get_running_loop().create_task(self._carried(group))
        self._under_way.add(task)
        task.add_done_callback(self._arrived)
        for _, place in group:
            place.add_done_callback(lambda _: all(each.cancelled() for _, each in group) and task.cancel())

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._depart()

    async def _carried(self, group: list[Waiting]) -> None:
        try:
            answers = await self._send([query for query, _ in group])
        except Exception as error:  # what befell the call befell all who were in it
            answers = [error] * len(group)
        for (_, place), answer in zip(group, answers, strict=True):
            settle(place, answer)


def settle(future: asyncio.Future[Any], answer: Any) -> None:
    """Give a future its result, or the exception that it is, unless nobody waits any more."""
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
