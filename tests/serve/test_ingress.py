"""The ingress on top of fake handles that record their calls."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve.exceptions import BackPressureError

from serve.deadline import DeadlineExceededError
from serve.deployments.searcher import Searcher
from serve.http.api import create_app
from serve.messages import Query, Release, SearchResult
from serve.problem import Problem
from serve.rollout.app_status import AppStatus, AppStatusWatch
from serve.rollout.records import ReleaseRecords
from serve.rollout.rollout import ActiveRelease, Rollout
from serve.settings import Settings, read_settings
from stbir.errors import InputError
from stbir.gallery.filters import Condition
from tests.serve.local import RUNNING, MemoryStore, send

RELEASE = Release("there/step-7", "sha256:x", "photos", 3)
RESULT = SearchResult([], RELEASE.digest, gallery_version=3)
SETTINGS = read_settings()
JSON_HEADERS = {"content-type": "application/json"}


class FakeResponse:
    """Awaiting it returns its result or raises it; an `asyncio.Event` never completes."""

    def __init__(self, result: Any) -> None:
        self.result, self.is_cancelled, self.is_awaited = result, False, False

    def __await__(self) -> Iterator[Any]:
        self.is_awaited = True
        if isinstance(self.result, asyncio.Event):
            yield from self.result.wait().__await__()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeHandle:
    """A deployment whose methods all return the same result."""

    def __init__(self, result: Any) -> None:
        self.result = result
        self.calls: list[tuple[str, tuple[Any, ...], FakeResponse]] = []

    def __getattr__(self, name: str) -> Any:
        handle = self

        class Method:
            @staticmethod
            def remote(*args: Any) -> FakeResponse:
                response = FakeResponse(handle.result)
                handle.calls.append((name, args, response))
                return response

        return Method


def search(searcher: Searcher, deadline_s: float = 5, **kwargs: Any) -> httpx.Response:
    """The response to a search; by default one with a sketch and a text."""
    app = create_app(searcher, replace(searcher.limits, deadline_s=deadline_s))
    kwargs = kwargs or {"json": {"text": "chair", "sketch": [[[0, 0], [1, 1]]]}}
    return send(app, "POST", "/v1/search", **kwargs)


def fake_searcher(
    fusion: Any,
    sketch: Any = None,
    text: Any = None,
    status: AppStatus = RUNNING,
    settings: Settings = SETTINGS,
) -> Searcher:
    """A searcher whose deployments return these results."""
    is_result = isinstance(fusion, SearchResult)
    handles = (FakeHandle(sketch), FakeHandle(text), FakeHandle([fusion] if is_result else fusion))
    watch = AppStatusWatch(lambda: status)
    asyncio.run(watch.refresh())
    rollout = Rollout(*handles, ReleaseRecords(MemoryStore()), watch)
    rollout.active = ActiveRelease(RELEASE, {"model": {}, "gallery": {}})
    return Searcher(*handles, rollout, settings)


def test_encoder_responses_are_passed_to_fusion_unawaited():
    searcher = fake_searcher(RESULT)
    assert asyncio.run(searcher.search(Query(b"png", "chair", 5, 0.25, "seat"))) is RESULT
    [(_, sketch_args, sketch)] = searcher.sketch.calls
    [(_, text_args, text)] = searcher.text.calls
    [(method, fusion_args, _)] = searcher.fusion.calls
    assert sketch_args == ([b"png"], "there/step-7", [math.inf])
    assert text_args == (["chair"], "there/step-7", [math.inf], "default")
    query = Query(None, None, 5, 0.25, "seat")
    assert (method, fusion_args) == ("search", (RELEASE, sketch, text, [query]))
    assert not sketch.is_awaited
    assert not text.is_awaited


def test_budget_counts_the_time_in_the_queue():
    """It travels as the seconds left, so that the clocks of machines may differ."""
    searcher = fake_searcher(asyncio.Event())

    async def scenario() -> None:
        async def start_searches(count: int) -> list[asyncio.Task[SearchResult]]:
            queries = [Query(None, "x", 1, 0.5, None, budget_s=5)] * count
            tasks = [asyncio.ensure_future(searcher.search(query)) for query in queries]
            await asyncio.sleep(0.01)
            return tasks

        groups = await start_searches(1) + await start_searches(1)  # as many as may be in flight
        queued = await start_searches(2)
        await asyncio.sleep(0.2)
        groups[0].cancel()
        await asyncio.sleep(0.01)
        for task in (*groups, *queued):
            task.cancel()

    asyncio.run(scenario())
    budgets_s = [budget_s for _, (_, _, budgets_s, _), _ in searcher.text.calls for budget_s in budgets_s]
    assert budgets_s == pytest.approx([5.0, 5.0, 4.8, 4.8], abs=0.15)


def hang_up(searcher: Searcher, *messages: dict[str, Any]) -> int:
    """The status of a search whose client sends `messages` and hangs up after 50 ms."""
    statuses: list[int] = []

    async def scenario() -> None:
        inputs = list(messages)

        async def receive() -> dict[str, Any]:
            if inputs:
                return inputs.pop(0)
            await asyncio.sleep(0.05)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            statuses.append(message.get("status"))

        headers = [(b"content-type", b"application/json"), (b"host", b"127.0.0.1")]
        scope = {"type": "http", "method": "POST", "path": "/v1/search", "headers": headers}
        scope |= {"query_string": b"", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}
        await asyncio.wait_for(create_app(searcher, searcher.limits)(scope, receive, send), 1)

    asyncio.run(scenario())
    return statuses[0]


def test_hung_up_search_leaves_the_queue_and_cancels_its_calls():
    searcher = fake_searcher(asyncio.Event())
    assert hang_up(searcher, {"type": "http.request", "body": b'{"text": "x"}', "more_body": False}) == 499
    calls = [*searcher.text.calls, *searcher.fusion.calls]
    assert [call.is_cancelled for _, _, call in calls] == [True, True]


def test_client_that_hangs_up_in_its_body_is_no_internal_error():
    searcher = fake_searcher(RESULT)
    assert hang_up(searcher, {"type": "http.request", "body": b'{"te', "more_body": True}) == 499
    assert searcher.fusion.calls == []


PRICE = {"column": "price", "op": "lt", "value": 3}
SHOP = {"column": "shop", "op": "in", "value": ["a", "it's"]}


@pytest.mark.parametrize(
    "kwargs",
    [
        {"json": {"text": "x", "where": [PRICE, SHOP]}},
        {"files": {"text": (None, "x"), "where": (None, json.dumps([PRICE, SHOP]))}},
    ],
)
def test_conditions_reach_fusion(kwargs):
    searcher = fake_searcher(RESULT)
    assert search(searcher, **kwargs).status_code == 200
    [(_, (*_, [query]), _)] = searcher.fusion.calls
    assert query.where == (Condition(**PRICE), Condition(**SHOP))


@pytest.mark.parametrize(
    ("where", "detail"),
    [
        ([{**PRICE, "op": "like"}], "where.0.op: "),
        ([PRICE, {"column": "a", "op": "eq"}], "where.1.value: "),
        ([{**PRICE, "column": 5}], "where.0.column: "),
        ("price < 3", "where: "),
        ({}, "where: "),
        ([PRICE] * 33, "where: 33 conditions exceed the limit of 32"),
    ],
)
def test_invalid_condition_is_refused_by_its_field(where, detail):
    response = search(fake_searcher(RESULT), json={"text": "x", "where": where})
    assert response.status_code == 422
    assert response.json()["detail"].startswith(detail)


@pytest.mark.parametrize(("sketch", "text"), [(b"png", None), (None, "chair")])
def test_missing_modality_is_none_and_its_encoder_is_not_called(sketch, text):
    searcher = fake_searcher(RESULT)
    asyncio.run(searcher.search(Query(sketch, text, 5, 0.5, None)))
    [(_, args, _)] = searcher.fusion.calls
    assert (args[1] is None, args[2] is None) == (sketch is None, text is None)
    assert (len(searcher.sketch.calls), len(searcher.text.calls)) == (sketch is not None, text is not None)


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (BackPressureError(1, 1), 429, "the service is at capacity"),
        (DeadlineExceededError("0.1 s past"), 504, "no answer before the deadline"),
        (InputError("sketch: not a readable image"), 415, "sketch"),
        (InputError("category: there is no such one"), 422, "category"),
        (InputError("where.0.column: there is no such one"), 422, "where.0.column"),
        (InputError("/secret/gallery: made with checkpoint a, but searched with b"), 503, "the gallery"),
        (RuntimeError("secret"), 500, "internal error"),
        (OSError("secret: 503 Slow Down"), 503, "the service is out of memory, or its storage does not"),
        (MemoryError(), 503, "the service is out of memory"),
        # Fusion awaits the encoders, so the death of an encoder is wrapped in fusion's error.
        (RayTaskError("search", "traceback", ActorDiedError()).as_instanceof_cause(), 503, "a replica"),
    ],
)
@pytest.mark.parametrize("source", ["call", "query"])
def test_error_is_answered_as_problem_details(error, status, detail, source, caplog):
    response = search(fake_searcher(error if source == "call" else [error]))
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"].startswith(detail)
    assert "secret" not in response.text
    assert ("retry-after" in response.headers) == (status in (429, 503))
    if isinstance(error, InputError):  # the response points to the log
        assert (str(error) in caplog.text) == (status == 503)


class DyingHandle(FakeHandle):
    """A deployment whose replica dies in each of the first calls."""

    def __init__(self, num_deaths: int) -> None:
        super().__init__([RESULT])
        self.results = [ActorDiedError()] * num_deaths + [[RESULT]] * 2

    def __getattr__(self, name: str) -> Any:
        self.result = self.results.pop(0)
        return super().__getattr__(name)


def test_search_is_retried_once_if_a_replica_dies():
    searcher = fake_searcher(RESULT)
    searcher.fusion = DyingHandle(1)
    assert search(searcher).status_code == 200
    assert (len(searcher.sketch.calls), len(searcher.fusion.calls)) == (2, 2)
    searcher.fusion = DyingHandle(2)
    response = search(searcher)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "a replica of the service died" in response.json()["detail"]


def test_ready_answers_from_the_last_status_without_a_request():
    expected = {"checkpoint": RELEASE.digest, "gallery_version": RELEASE.version, "refused": None}
    searcher = fake_searcher(RESULT)
    assert asyncio.run(searcher.ready()) == expected
    without_text = AppStatus(1.0, RUNNING.running - {"TextReplica"})
    with pytest.raises(Problem, match="no replica of TextReplica is running"):
        asyncio.run(fake_searcher(RESULT, status=without_text).ready())
    text = replace(SETTINGS.text, options={"autoscaling_config": {"min_replicas": 0}})
    scaled_to_zero = fake_searcher(RESULT, status=without_text, settings=replace(SETTINGS, text=text))
    assert asyncio.run(scaled_to_zero.ready()) == expected
    assert [*searcher.sketch.calls, *searcher.text.calls, *searcher.fusion.calls] == []


def test_ready_is_503_with_the_reason_once_the_status_is_too_old(monkeypatch):
    searcher = fake_searcher(RESULT)
    app = create_app(searcher, searcher.limits)
    assert send(app, "GET", "/readyz").status_code == 200
    monkeypatch.setattr("serve.rollout.app_status.MAX_AGE_S", 0.0)
    response = send(app, "GET", "/readyz")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["detail"].startswith("Serve's controller has not reported for 60 s")
    assert send(app, "GET", "/healthz").status_code == 200
    assert search(searcher).status_code == 200


def test_search_is_unavailable_until_a_gallery_is_published():
    searcher = fake_searcher(RESULT)
    unpublished = replace(RELEASE, version=None)
    searcher.rollout.active = ActiveRelease(unpublished, {"model": {}, "gallery": None})
    response = search(searcher)
    assert (response.status_code, searcher.fusion.calls, searcher.text.calls) == (503, [], [])
    assert response.json()["detail"].startswith("no gallery is published")


def test_deadline_gives_504_and_cancels_all_calls():
    searcher = fake_searcher(asyncio.Event())
    response = search(searcher, deadline_s=0.3)
    assert response.status_code == 504
    assert response.json()["detail"].startswith("no answer within 0.3 s")
    calls = [*searcher.sketch.calls, *searcher.text.calls, *searcher.fusion.calls]
    assert [call.is_cancelled for _, _, call in calls] == [True, True, True]


def test_body_is_read_up_to_the_limit_only():
    searcher, num_bytes = fake_searcher(RESULT), 0

    async def endless_body() -> AsyncIterator[bytes]:
        nonlocal num_bytes
        while True:
            num_bytes += 100_000
            yield b" " * 100_000

    response = search(searcher, content=endless_body(), headers=JSON_HEADERS)
    assert response.status_code == 413
    assert num_bytes <= searcher.limits.body_bytes + 2 * 100_000


def test_slow_body_times_out_at_the_deadline():
    async def stalled_body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    response = search(fake_searcher(RESULT), deadline_s=0.05, content=stalled_body(), headers=JSON_HEADERS)
    assert response.status_code == 504


def test_thumbnails_are_fetched_a_few_at_a_time():
    """So that they leave the places of fusion to searches."""
    searcher = fake_searcher(asyncio.Event())

    async def scenario() -> None:
        tasks = [asyncio.ensure_future(searcher.thumbnail(str(number))) for number in range(20)]
        await asyncio.sleep(0.01)
        assert len(searcher.fusion.calls) == SETTINGS.ingress.thumbnails.max_concurrent
        tasks[0].cancel()
        await asyncio.sleep(0.01)
        assert len(searcher.fusion.calls) == SETTINGS.ingress.thumbnails.max_concurrent + 1
        for task in tasks:
            task.cancel()

    asyncio.run(scenario())
