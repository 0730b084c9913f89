"""Health checks in front of a server that is busy: fast, and at most one request a second behind them."""

import asyncio
import time
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp

from serve.http.admission import Admission, AdmissionControl
from serve.http.api import create_app
from serve.http.gateway_errors import middlewares
from serve.http.paths import PROBES
from serve.http.probes import REFRESH_S, ProbeMiddleware
from serve.problem import Problem, problem_app
from tests.serve.test_ingress import fake_searcher


class Application:
    """Answers each request with its number; once `is_stuck`, it answers none."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.is_stuck = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests.append(scope["path"])
        assert (await receive())["type"] == "http.request"
        if self.is_stuck:
            await receive()  # a disconnect, which must not come
        number = len(self.requests)
        headers = {"x-origin": str("origin" in dict(scope["headers"]))}
        await JSONResponse({"number": number}, 503 if number == 2 else 200, headers)(scope, receive, send)


async def get(app: Any, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return await client.get(path, headers={"origin": "https://pad.example.org"})


def test_probes_are_answered_while_the_application_is_stuck() -> None:
    async def scenario() -> None:
        app = Application()
        probes = ProbeMiddleware(app)
        first = await get(probes, "/readyz")
        assert (first.status_code, first.json(), first.headers["x-origin"]) == (200, {"number": 1}, "False")
        app.is_stuck = True
        durations_s = []
        for _ in range(200):
            start = time.perf_counter()
            assert (await get(probes, "/readyz")).json() == {"number": 1}
            durations_s.append(time.perf_counter() - start)
        assert sorted(durations_s)[190] < 0.02
        assert app.requests == ["/readyz"]

    asyncio.run(scenario())


def test_answer_is_refreshed_while_probes_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.http.probes.REFRESH_S", 0.05)
    monkeypatch.setattr("serve.http.probes.IDLE_S", 0.2)

    async def scenario() -> None:
        app = Application()
        probes = ProbeMiddleware(app)
        assert (await get(probes, "/readyz")).json() == {"number": 1}
        await asyncio.sleep(0.07)
        second = await get(probes, "/readyz")
        assert (second.status_code, second.json()) == (503, {"number": 2})
        await asyncio.sleep(0.5)
        num_requests = len(app.requests)
        await asyncio.sleep(0.2)
        assert len(app.requests) == num_requests  # idle
        assert (await get(probes, "/readyz")).json() == {"number": num_requests + 1}

    asyncio.run(scenario())


def test_old_answer_becomes_503(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REFRESH_S", "MAX_AGE_S"):
        monkeypatch.setattr(f"serve.http.probes.{name}", 0.05)

    async def scenario() -> None:
        app = Application()
        probes = ProbeMiddleware(app)
        assert (await get(probes, "/healthz")).status_code == 200
        app.is_stuck = True
        await asyncio.sleep(0.2)
        response = await get(probes, "/healthz")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")

    asyncio.run(scenario())


def test_flood_of_probes_takes_no_place_and_calls_no_replica_while_searches_are_full() -> None:
    searcher = fake_searcher(asyncio.Event())  # whose deployments never answer
    handles = (searcher.sketch, searcher.text, searcher.fusion)
    requested: list[str] = []

    async def scenario() -> None:
        rejection = problem_app(Problem(HTTPStatus.TOO_MANY_REQUESTS, "at capacity"))
        control = AdmissionControl(rejection, Admission(3), Admission(3))
        app: ASGIApp = create_app(searcher, searcher.limits, admission=control)

        async def count(scope: Any, receive: Any, send: Any) -> None:
            requested.append(scope["path"])
            await app(scope, receive, send)

        proxy: ASGIApp = count
        for middleware in reversed(middlewares()):
            proxy = middleware.cls(proxy)
        searches = [asyncio.create_task(post_search(proxy)) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert (await post_search(proxy)).status_code == 429
        num_calls = [len(handle.calls) for handle in handles]
        for path in PROBES:
            assert [(await get(proxy, path)).status_code for _ in range(100)] == [200] * 100
        assert [len(handle.calls) for handle in handles] == num_calls
        assert (control.searches.in_flight, control.thumbnails.in_flight) == (3, 0)
        for search in searches:
            search.cancel()

    start = time.monotonic()
    asyncio.run(scenario())
    max_refreshes = len(PROBES) * (1 + (time.monotonic() - start) / REFRESH_S)
    assert len([path for path in requested if path in PROBES]) <= max_refreshes


async def post_search(app: ASGIApp) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return await client.post("/v1/search", json={"text": "a chair"})


def test_other_requests_pass() -> None:
    async def scenario() -> None:
        probes = ProbeMiddleware(Application())
        assert [(await get(probes, "/v1/info")).json()["number"] for _ in range(3)] == [1, 2, 3]

    asyncio.run(scenario())


def test_proxy_answers_probes_before_everything_else() -> None:
    assert middlewares()[0].cls is ProbeMiddleware
