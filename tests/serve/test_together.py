"""Searches that go on together: who goes with whom, and what becomes of each."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from serve.deployments.coalescing import Together
from serve.messages import Found, Query
from serve.settings import Gathering


class FullError(Exception):
    """All places are taken."""


class Sent:
    """Groups as they are sent; each comes back when `go` is called, with an answer that names the query."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.back: list[asyncio.Future[None]] = []
        self.cancelled = 0

    async def __call__(self, queries: list[Query]) -> list[Found | Exception]:
        self.groups.append([str(query.text) for query in queries])
        self.back.append(asyncio.get_running_loop().create_future())
        try:
            await self.back[-1]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return [ValueError(q.text) if q.text == "bad" else Found([], str(q.text), 1) for q in queries]

    def go(self, group: int, error: Exception | None = None) -> None:
        self.back[group].set_exception(error) if error else self.back[group].set_result(None)


def query(text: str) -> Query:
    return Query(None, text, 1, 0.5, None)


def run(story: Callable[[Together, Sent], Awaitable[Any]], **gathering: int) -> Any:
    async def told() -> Any:
        sent = Sent()
        together = Together(sent, Gathering(**{"most": 3, "lanes": 1, "places": 9} | gathering), FullError)
        return await story(together, sent)

    return asyncio.run(told())


def asking(together: Together, words: str) -> list[asyncio.Task[Found]]:
    return [asyncio.ensure_future(together(query(word))) for word in words.split()]


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_one_alone_goes_at_once_and_what_comes_meanwhile_goes_together() -> None:
    async def story(together: Together, sent: Sent) -> None:
        tasks = asking(together, "a")
        await settled()
        tasks += asking(together, "b c")
        await settled()
        assert sent.groups == [["a"]]
        sent.go(0)
        await settled()
        assert sent.groups == [["a"], ["b", "c"]]
        sent.go(1)
        assert [found.checkpoint for found in await asyncio.gather(*tasks)] == ["a", "b", "c"]

    run(story)


def test_so_many_as_fill_a_group_wait_for_no_lane() -> None:
    async def story(together: Together, sent: Sent) -> None:
        tasks = asking(together, "a b c d e")
        await settled()
        assert sent.groups == [["a"], ["b", "c", "d"]]
        sent.go(0)
        await settled()
        assert sent.groups == [["a"], ["b", "c", "d"]]  # one is still under way
        sent.go(1)
        await settled()
        assert sent.groups[2:] == [["e"]]
        sent.go(2)
        await asyncio.gather(*tasks)

    run(story)


def test_what_is_wrong_with_one_harms_no_other() -> None:
    async def story(together: Together, sent: Sent) -> None:
        tasks = asking(together, "a bad b")
        await settled()
        sent.go(0)
        await settled()
        sent.go(1)
        good, bad, other = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(bad, ValueError)
        assert (good.checkpoint, other.checkpoint) == ("a", "b")

    run(story)


def test_what_befalls_a_call_befalls_all_in_it_and_nobody_else() -> None:
    async def story(together: Together, sent: Sent) -> None:
        tasks = asking(together, "a b c")
        await settled()
        sent.go(0)
        await settled()
        sent.go(1, OSError("lost"))
        _, *lost = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in lost] == [OSError, OSError]
        again = asking(together, "d")
        await settled()
        sent.go(2)
        assert (await again[0]).checkpoint == "d"

    run(story)


def test_full_is_refused_at_once() -> None:
    async def story(together: Together, sent: Sent) -> None:
        tasks = asking(together, "a b c")
        await settled()
        with pytest.raises(FullError):
            await together(query("d"))
        for group in range(2):
            sent.go(group)
            await settled()
        await asyncio.gather(*tasks)

    run(story, places=2)


def test_who_has_gone_is_asked_for_no_more() -> None:
    async def story(together: Together, sent: Sent) -> None:
        tasks = asking(together, "a b c")
        await settled()
        tasks[1].cancel()
        sent.go(0)
        await settled()
        assert sent.groups == [["a"], ["c"]]
        tasks[2].cancel()  # the last of its group: nobody waits for the answer
        await settled()
        assert sent.cancelled == 1
        assert [task.cancelled() for task in tasks] == [False, True, True]

    run(story)
