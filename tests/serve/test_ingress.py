"""The ingress over handles that note what they are asked: the order of things, which no timing can show."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.responses import JSONResponse
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve.exceptions import BackPressureError

from serve.deadline import DeadlineExceededError
from serve.deployments.error_mapping import full
from serve.deployments.ingress import Searcher
from serve.http.admission import Door, TurnedAway, keep
from serve.http.api import create_app
from serve.messages import Found, Query, Release
from serve.problem import Problem
from serve.rollout.rollout import Current
from serve.settings import read_settings
from stbir.errors import InputError
from stbir.gallery.filters import Condition

ROOT = Path(__file__).resolve().parents[2]
RELEASE = Release("there/step-7", "sha256:x", "photos", 3)
FOUND = Found([], RELEASE.digest, gallery_version=3)


class Response:
    """As Serve's: awaiting it gives its result or raises it; `asyncio.Event` never comes."""

    def __init__(self, result: Any) -> None:
        self.result, self.cancelled, self.awaited = result, False, False

    def __await__(self):
        self.awaited = True
        if isinstance(self.result, asyncio.Event):
            yield from self.result.wait().__await__()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """One deployment: every method answers with the same result."""

    def __init__(self, result: Any) -> None:
        self.result = result
        self.calls: list[tuple[str, tuple[Any, ...], Response]] = []

    def __getattr__(self, name: str) -> Any:
        handle = self

        class Method:
            @staticmethod
            def remote(*args: Any) -> Response:
                response = Response(handle.result)
                handle.calls.append((name, args, response))
                return response

        return Method


def searched(searcher: Searcher, deadline_s: float = 5, **request: Any) -> httpx.Response:
    """The answer to a search over HTTP, without a network in between."""
    app = create_app(searcher, replace(searcher.limits, deadline_s=deadline_s))
    request = request or {"json": {"text": "chair", "sketch": [[[0, 0], [1, 1]]]}}

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post("/v1/search", **request)

    return asyncio.run(send())


def searcher(fusion: Any, sketch: Any = None, text: Any = None) -> Searcher:
    handles = (Handle(sketch), Handle(text), Handle([fusion] if isinstance(fusion, Found) else fusion))
    settings = read_settings()
    found = Searcher(*handles, settings.limits, settings.ingress.together)
    found.changeover.current = Current(RELEASE, {"model": {}, "gallery": {}})
    return found


def test_both_towers_start_and_their_responses_go_on_unawaited():
    asked = searcher(FOUND)
    assert asyncio.run(asked.search(Query(b"png", "chair", 5, 0.25, "seat", deadline=7.5))) is FOUND
    [(_, sent, sketch)] = asked.sketch.calls
    [(_, words, text)] = asked.text.calls
    [(method, passed, _)] = asked.fusion.calls
    assert (sent, words) == (([b"png"], "there/step-7", [7.5]), (["chair"], "there/step-7", [7.5]))
    rest = Query(None, None, 5, 0.25, "seat", deadline=7.5)
    assert (method, passed) == ("search", (RELEASE, sketch, text, [rest]))
    assert not sketch.awaited
    assert not text.awaited


PRICE = {"column": "price", "op": "lt", "value": 3}
SHOP = {"column": "shop", "op": "in", "value": ["a", "it's"]}


@pytest.mark.parametrize(
    "request_",
    [
        {"json": {"text": "x", "where": [PRICE, SHOP]}},
        {"files": {"text": (None, "x"), "where": (None, json.dumps([PRICE, SHOP]))}},
    ],
)
def test_conditions_reach_the_gallery(request_):
    asked = searcher(FOUND)
    assert searched(asked, **request_).status_code == 200
    [(_, (*_, [query]), _)] = asked.fusion.calls
    assert query.where == (Condition(**PRICE), Condition(**SHOP))


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ([{**PRICE, "op": "like"}], "where.0.op: "),
        ([PRICE, {"column": "a", "op": "eq"}], "where.1.value: "),
        ([{**PRICE, "column": 5}], "where.0.column: "),
        ("price < 3", "where: "),
        ({}, "where: "),
        ([PRICE] * 33, "where: 33 conditions are more than 32"),
    ],
)
def test_what_is_no_condition_is_a_bad_field(where, says):
    answer = searched(searcher(FOUND), json={"text": "x", "where": where})
    assert (answer.status_code, answer.json()["detail"][: len(says)]) == (422, says)


@pytest.mark.parametrize(("sketch", "text"), [(b"png", None), (None, "chair")])
def test_what_is_missing_is_passed_as_none_and_encoded_nowhere(sketch, text):
    asked = searcher(FOUND)
    asyncio.run(asked.search(Query(sketch, text, 5, 0.5, None)))
    [(_, passed, _)] = asked.fusion.calls
    assert (passed[1] is None, passed[2] is None) == (sketch is None, text is None)
    assert (len(asked.sketch.calls), len(asked.text.calls)) == (sketch is not None, text is not None)


@pytest.mark.parametrize(
    ("result", "status", "says"),
    [
        (BackPressureError(1, 1), 429, "all places are taken"),
        (DeadlineExceededError("0.1 s past"), 504, "no answer in time"),
        (InputError("sketch: not a readable picture"), 415, "sketch"),
        (InputError("category: there is no such one"), 422, "category"),
        (InputError("where.0.column: there is no such one"), 422, "where.0.column"),
        (InputError("/secret/gallery: made with checkpoint a, but searched with b"), 503, "the gallery"),
        (RuntimeError("secret"), 500, "this is a fault of the server"),
    ],
)
@pytest.mark.parametrize("of", ["the call", "the query"])
def test_what_goes_wrong_behind_is_a_problem(result, status, says, of):
    answer = searched(searcher(result if of == "the call" else [result]))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"].startswith(says)
    assert "secret" not in answer.text
    assert ("retry-after" in answer.headers) == (status in (429, 503))


class Fails(Handle):
    """The first calls raise what was lost, those after them answer."""

    def __init__(self, times: int) -> None:
        super().__init__([FOUND])
        self.results = [ActorDiedError()] * times + [[FOUND]] * 2

    def __getattr__(self, name: str) -> Any:
        self.result = self.results.pop(0)
        return super().__getattr__(name)


def test_a_search_whose_replica_dies_is_tried_again_once():
    asked = searcher(FOUND)
    asked.fusion = Fails(1)
    assert searched(asked).status_code == 200
    assert (len(asked.sketch.calls), len(asked.fusion.calls)) == (2, 2)
    asked.fusion = Fails(2)
    answer = searched(asked)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "was lost" in answer.json()["detail"]


def test_a_replica_that_died_behind_another_is_as_well_lost():
    """Fusion awaits what the towers answer: their death comes back as its own error."""
    wrapped = RayTaskError("search", "traceback", ActorDiedError()).as_instanceof_cause()
    assert searched(searcher(wrapped)).status_code == 503


def test_ready_while_full_and_where_a_tower_is_scaled_to_zero():
    told = {"checkpoint": RELEASE.digest, "gallery_version": RELEASE.version, "refused": None}
    asked = searcher(FOUND)
    asked.text.result = BackPressureError(1, 1)
    assert asyncio.run(asked.ready()) == told
    asked.text.result = ActorDiedError()
    with pytest.raises(Problem, match="was lost"):
        asyncio.run(asked.ready())
    settings = read_settings()
    zero = Searcher(
        *(asked.sketch, asked.text, asked.fusion, settings.limits, settings.ingress.together),
        kept=[asked.sketch, asked.fusion],
    )
    zero.changeover.current = asked.changeover.current
    assert asyncio.run(zero.ready()) == told


def test_without_a_gallery_nobody_is_asked():
    asked = searcher(FOUND)
    asked.changeover.current = Current(replace(RELEASE, version=None), {"model": {}, "gallery": None})
    answer = searched(asked)
    assert (answer.status_code, asked.fusion.calls, asked.text.calls) == (503, [], [])
    assert answer.json()["detail"].startswith("no gallery is published")


def test_past_the_deadline_504_and_nobody_goes_on_working():
    asked = searcher(asyncio.Event())
    answer = searched(asked, deadline_s=0.05)
    assert answer.status_code == 504
    assert answer.json()["detail"].startswith("no answer within 0.05 s")
    calls = [*asked.sketch.calls, *asked.text.calls, *asked.fusion.calls]
    assert [response.cancelled for _, _, response in calls] == [True, True, True]


def test_the_ingress_imports_neither_torch_nor_lance():
    """So that one more of it is there in a moment and takes little memory."""
    code = "import sys, serve.deployments.ingress; print([n for n in ('torch', 'lance') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_body_is_read_no_further_than_its_bound():
    asked, sent = searcher(FOUND), 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 100_000
            yield b" " * 100_000

    answer = searched(asked, content=endless(), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert sent <= asked.limits.body_bytes + 2 * 100_000


def test_a_client_that_sends_too_slowly_is_not_waited_for():
    async def stalled() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    headers = {"content-type": "application/json"}
    answer = searched(searcher(FOUND), deadline_s=0.05, content=stalled(), headers=headers)
    assert answer.status_code == 504


def test_while_all_places_are_taken_a_search_is_turned_away_unread():
    asked, read = searcher(FOUND), False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b"{}"

    app = create_app(asked, asked.limits, closed=lambda inside: TurnedAway(full(3)))

    async def send() -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post("/v1/search", content=body()), await client.get("/healthz")

    answer, health = asyncio.run(send())
    assert (answer.status_code, answer.headers["retry-after"], read) == (429, "3", False)
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert health.status_code == 200


def test_of_searches_that_arrive_in_one_moment_no_more_come_in_than_may():
    """None of them waits in a group yet when the last of them arrives: they are counted at the door."""
    read, over = 0, asyncio.Event()

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        nonlocal read
        read += 1
        await over.wait()
        await JSONResponse({})(scope, receive, send)

    door = Door(inside, lambda count: TurnedAway(full(1)) if count >= 3 else None)

    async def story() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://t") as http:
            asked = [asyncio.ensure_future(http.post("/v1/search")) for _ in range(5)]
            await asyncio.wait(asked, timeout=1, return_when=asyncio.FIRST_COMPLETED)
            over.set()
            first = [answer.status_code for answer in await asyncio.gather(*asked)]
            return [*first, (await http.post("/v1/search")).status_code]

    assert sorted(asyncio.run(story())) == [200, 200, 200, 200, 429, 429]
    assert (read, door.inside) == (4, 0)


def test_what_wraps_the_process_asks_the_ingress_that_lives_in_it():
    """Ray Serve puts it around the server of an ingress; in a proxy none lives."""
    is_full = False

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse({"from": "inside"})(scope, receive, send)

    async def ask(path: str) -> int:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(Door(inside)), base_url="http://t"
        ) as http:
            return (await http.post(path)).status_code

    assert asyncio.run(ask("/v1/search")) == 200
    keep(lambda inside: TurnedAway(full(1)) if is_full else None)
    assert asyncio.run(ask("/v1/search")) == 200
    is_full = True
    assert [asyncio.run(ask(path)) for path in ("/v1/search", "/healthz")] == [429, 200]
    keep(lambda inside: None)
