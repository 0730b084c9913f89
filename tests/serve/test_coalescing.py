"""Coalescing: which queries form a group, and the result of each."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from serve.deadline import DeadlineExceededError
from serve.deployments.coalescing import Coalescer
from serve.messages import Query, SearchResult
from serve.settings import Coalescing


class FakeDeployment:
    """Records groups of queries. A group is answered once `answer` is called, with the text as checkpoint."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.answers: list[asyncio.Future[None]] = []
        self.cancelled_count = 0

    async def __call__(self, queries: list[Query]) -> list[SearchResult | Exception]:
        self.groups.append([str(query.text) for query in queries])
        self.answers.append(asyncio.get_running_loop().create_future())
        try:
            await self.answers[-1]
        except asyncio.CancelledError:
            self.cancelled_count += 1
            raise
        return [ValueError(q.text) if q.text == "bad" else SearchResult([], str(q.text), 1) for q in queries]

    async def answer(self, group: int, error: Exception | None = None) -> None:
        self.answers[group].set_exception(error) if error else self.answers[group].set_result(None)
        await run_callbacks()


def make_query(text: str, budget_s: float = 60) -> Query:
    return Query(None, text, 1, 0.5, None, budget_s=budget_s)


def run(scenario: Callable[[Coalescer, FakeDeployment], Awaitable[Any]]) -> None:
    async def main() -> None:
        deployment = FakeDeployment()
        settings = Coalescing(max_group_size=3, max_concurrent_groups=1, max_queued_searches=9)
        await scenario(Coalescer(deployment, settings), deployment)

    asyncio.run(main())


async def send(coalescer: Coalescer, texts: str) -> list[asyncio.Task[SearchResult]]:
    """One task a text, each started."""
    tasks = [asyncio.ensure_future(coalescer(make_query(text))) for text in texts.split()]
    await run_callbacks()
    return tasks


async def run_callbacks() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_single_query_is_sent_at_once_and_later_ones_form_a_group() -> None:
    async def scenario(coalescer: Coalescer, deployment: FakeDeployment) -> None:
        tasks = await send(coalescer, "a")
        tasks += await send(coalescer, "b c")
        assert deployment.groups == [["a"]]
        await deployment.answer(0)
        assert deployment.groups == [["a"], ["b", "c"]]
        await deployment.answer(1)
        assert [result.checkpoint for result in await asyncio.gather(*tasks)] == ["a", "b", "c"]

    run(scenario)


def test_full_group_is_sent_at_once() -> None:
    async def scenario(coalescer: Coalescer, deployment: FakeDeployment) -> None:
        tasks = await send(coalescer, "a b c d e")
        assert deployment.groups == [["a"], ["b", "c", "d"]]
        await deployment.answer(0)
        assert deployment.groups == [["a"], ["b", "c", "d"]]  # one group is still in flight
        await deployment.answer(1)
        assert deployment.groups[2:] == [["e"]]
        await deployment.answer(2)
        await asyncio.gather(*tasks)

    run(scenario)


def test_error_of_one_query_does_not_affect_its_group() -> None:
    async def scenario(coalescer: Coalescer, deployment: FakeDeployment) -> None:
        tasks = await send(coalescer, "a bad b")
        await deployment.answer(0)
        await deployment.answer(1)
        good, bad, other = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(bad, ValueError)
        assert (good.checkpoint, other.checkpoint) == ("a", "b")

    run(scenario)


def test_error_of_a_call_fails_its_group_only() -> None:
    async def scenario(coalescer: Coalescer, deployment: FakeDeployment) -> None:
        tasks = await send(coalescer, "a b c")
        await deployment.answer(0)
        await deployment.answer(1, OSError("connection reset"))
        _, *errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in errors] == [OSError, OSError]
        [next_task] = await send(coalescer, "d")
        await deployment.answer(2)
        assert (await next_task).checkpoint == "d"

    run(scenario)


def test_cancelled_queries_free_their_places_at_once() -> None:
    """A full group is sent at once: cancelled queries do not fill it."""

    async def scenario(coalescer: Coalescer, deployment: FakeDeployment) -> None:
        tasks = await send(coalescer, "a b c")
        for task in tasks[1:]:
            task.cancel()
        await run_callbacks()
        await send(coalescer, "d e")
        assert deployment.groups == [["a"]]
        await deployment.answer(0)
        assert deployment.groups == [["a"], ["d", "e"]]

    run(scenario)


def test_query_whose_deadline_passed_in_the_queue_is_not_sent() -> None:
    async def scenario(coalescer: Coalescer, deployment: FakeDeployment) -> None:
        [first] = await send(coalescer, "a")
        late = asyncio.ensure_future(coalescer(make_query("late", budget_s=0.01)))
        [timely] = await send(coalescer, "b")
        await asyncio.sleep(0.02)
        await deployment.answer(0)
        await deployment.answer(1)
        assert deployment.groups == [["a"], ["b"]]
        assert [(await task).checkpoint for task in (first, timely)] == ["a", "b"]
        with pytest.raises(DeadlineExceededError):
            await late

    run(scenario)


def test_cancelled_queries_are_not_sent() -> None:
    async def scenario(coalescer: Coalescer, deployment: FakeDeployment) -> None:
        tasks = await send(coalescer, "a b c")
        tasks[1].cancel()
        await deployment.answer(0)
        assert deployment.groups == [["a"], ["c"]]
        tasks[2].cancel()  # the last of its group: the call is cancelled
        await run_callbacks()
        assert deployment.cancelled_count == 1
        assert [task.cancelled() for task in tasks] == [False, True, True]

    run(scenario)
