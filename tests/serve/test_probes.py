"""Health checks in front of a server that is busy: fast, and at most one request a second behind them."""

import asyncio
import time
from typing import Any

import httpx
import pytest
from fastapi.responses import JSONResponse

from serve.http.gateway_errors import middlewares
from serve.http.probes import ProbeMiddleware


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


def test_other_requests_pass() -> None:
    async def scenario() -> None:
        probes = ProbeMiddleware(Application())
        assert [(await get(probes, "/v1/info")).json()["number"] for _ in range(3)] == [1, 2, 3]

    asyncio.run(scenario())


def test_proxy_answers_probes_before_everything_else() -> None:
    assert middlewares()[0].cls is ProbeMiddleware
