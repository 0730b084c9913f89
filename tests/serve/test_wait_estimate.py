"""The expected wait of a search: an overloaded endpoint rejects searches instead of answering 504."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from serve.deployments.searcher import Searcher
from serve.http import wait_estimate
from serve.http.admission import Admission, AdmissionControl
from serve.http.api import create_app
from serve.http.wait_estimate import WaitEstimate
from serve.messages import SearchResult
from tests.serve.test_admission import REJECTION, request
from tests.serve.test_ingress import RESULT, fake_searcher


class Clock:
    """Replaces the monotonic clock."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(wait_estimate, "time", clock)
    return clock


def serve_queue(estimate: WaitEstimate, clock: Clock, count: int, seconds_each: float) -> list[float]:
    """Searches that start together and end one after the other; the estimate after each."""
    searches = [estimate.measure() for _ in range(count)]
    for search in searches:
        search.__enter__()
    estimates = []
    for search in searches:
        clock.now_s += seconds_each
        search.__exit__(None, None, None)
        estimates.append(estimate.seconds)
    return estimates


def test_estimate_is_the_time_that_the_queue_takes(clock: Clock) -> None:
    estimate = WaitEstimate()
    for _ in range(3):
        estimates = serve_queue(estimate, clock, 60, 0.05)
    expected = [(59 - ended) * 0.05 for ended in range(60)]
    assert estimates == pytest.approx(expected, rel=0.01, abs=1e-9)


def test_few_slow_searches_tell_nothing_about_throughput(clock: Clock) -> None:
    """One search takes 50 ms, as do sixteen that share a batch."""
    estimate = WaitEstimate()
    serve_queue(estimate, clock, 8, 5.0)
    with estimate.measure():
        assert estimate.seconds == 0.0


def test_estimate_recovers_when_searches_are_fast_again(clock: Clock) -> None:
    """Also if so few are admitted meanwhile that they would not raise it."""
    estimate = WaitEstimate()
    serve_queue(estimate, clock, 100, 2.0)
    for _ in range(50):
        serve_queue(estimate, clock, 2, 0.01)
    assert serve_queue(estimate, clock, 2, 0.01)[0] < 0.05


def test_cancelled_searches_raise_the_estimate_and_never_lower_it(clock: Clock) -> None:
    """Those that pass their deadline are cancelled, and so are those whose clients hang up at once."""
    estimate = WaitEstimate()
    serve_queue(estimate, clock, 100, 0.1)
    searches = [estimate.measure() for _ in range(100)]
    for search in searches:
        search.__enter__()
    before = estimate.seconds
    for search in searches[:50]:
        assert not search.__exit__(asyncio.CancelledError, asyncio.CancelledError(), None)
    assert estimate.seconds == pytest.approx(before / 2)
    clock.now_s += 100
    for search in searches[50:70]:
        assert not search.__exit__(asyncio.CancelledError, asyncio.CancelledError(), None)
    assert estimate.seconds > before


class OneByOne:
    """A fusion deployment that takes `seconds` for each query of a group."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.lock = seconds, asyncio.Lock()

    async def _search(self, *args: Any) -> list[SearchResult]:
        async with self.lock:
            await asyncio.sleep(self.seconds * len(args[-1]))
        return [RESULT] * len(args[-1])

    @property
    def search(self) -> Any:
        class Method:
            @staticmethod
            def remote(*args: Any) -> asyncio.Task[Any]:
                return asyncio.ensure_future(self._search(*args))

        return Method


async def flood(searcher: Searcher, rate: float, seconds: float) -> list[int]:
    """The statuses of searches in an open loop, in the order in which they were sent."""
    admission = Admission(288, is_late=lambda scope: searcher.is_late)
    app = create_app(searcher, searcher.limits, admission=AdmissionControl(REJECTION, admission))
    tasks = []
    for _ in range(int(rate * seconds)):
        tasks.append(asyncio.ensure_future(request(app, "POST", "/v1/search", json={"text": "chair"})))
        await asyncio.sleep(1 / rate)
    return [response.status_code for response in await asyncio.gather(*tasks)]


def test_overloaded_endpoint_rejects_instead_of_missing_deadlines() -> None:
    """40 searches/s reach an endpoint that answers 20/s within 2 s: a queue of 288 would take 14 s."""
    searcher = fake_searcher(RESULT)
    searcher.limits = replace(searcher.limits, deadline_s=2.0)
    searcher.fusion = OneByOne(0.05)
    statuses = Counter(asyncio.run(flood(searcher, 40, 4)))
    assert statuses.keys() == {200, 429}
    assert statuses[200] >= 40  # of about 80 that it can answer in that time
