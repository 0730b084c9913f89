"""Admission control: which requests are rejected, and that a rejected one is not read."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import pytest
from fastapi.responses import JSONResponse

from serve.http.admission import (
    Admission,
    AdmissionControl,
    AdmissionMiddleware,
    EarlyRejectionMiddleware,
    set_process_control,
)
from serve.http.api import create_app
from serve.problem import Problem, problem_app
from serve.settings import read_settings
from tests.serve.local import request, send
from tests.serve.test_auth import EmptyBackend

REJECTION = problem_app(Problem(HTTPStatus.TOO_MANY_REQUESTS, "at capacity", {"Retry-After": "3"}))
FULL = AdmissionControl(REJECTION, Admission(0), Admission(0))


class Application:
    """Answers requests once `released` is set, and counts them by path."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.released = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        await self.released.wait()
        await JSONResponse({})(scope, receive, send)


def test_search_at_capacity_is_rejected_unread() -> None:
    is_read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal is_read
        is_read = True
        yield b"{}"

    app = create_app(EmptyBackend(), read_settings().limits, admission=FULL)
    response = send(app, "POST", "/v1/search", content=body())
    assert (response.status_code, response.headers["retry-after"], is_read) == (429, "3", False)
    assert response.json()["request_id"] == response.headers["x-request-id"]
    for path in ("/healthz", "/readyz", "/v1/info"):
        assert send(app, "GET", path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "other"),
    [("POST", "/v1/search", "/v1/photos/a"), ("GET", "/v1/photos/a", "/v1/search")],
)
def test_concurrent_requests_are_admitted_up_to_the_limit_of_their_kind(
    method: str, path: str, other: str
) -> None:
    """They count from their admission: none of them is queued yet when the last arrives."""

    async def scenario() -> None:
        app, control = Application(), AdmissionControl(REJECTION, Admission(3), Admission(3))
        admission = AdmissionMiddleware(app, control)
        tasks = [asyncio.ensure_future(request(admission, method, path)) for _ in range(5)]
        other_method = "GET" if method == "POST" else "POST"
        tasks += [asyncio.ensure_future(request(admission, other_method, other)) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert (control.searches.in_flight, control.thumbnails.in_flight) == (3, 3)
        app.released.set()
        statuses = [response.status_code for response in await asyncio.gather(*tasks)]
        assert sorted(statuses[:5]) == [200, 200, 200, 429, 429]
        assert statuses[5:] == [200] * 3
        assert (await request(admission, method, path)).status_code == 200
        assert (control.searches.in_flight, control.thumbnails.in_flight) == (0, 0)
        assert len(app.paths) == 7

    asyncio.run(scenario())


def test_application_below_a_prefix_has_the_same_limits() -> None:
    control = AdmissionControl(REJECTION)
    scope = {"type": "http", "method": "POST", "root_path": "/shop"}
    assert control.of({**scope, "path": "/shop/v1/search"}) is control.searches
    assert control.of({**scope, "path": "/shop/v1/photos/a"}) is control.thumbnails
    assert control.of({**scope, "path": "/shop/healthz"}) is None


def test_cancelled_request_frees_its_place() -> None:
    async def scenario() -> None:
        control = AdmissionControl(REJECTION, Admission(1))
        admission = AdmissionMiddleware(Application(), control)
        task = asyncio.ensure_future(request(admission, "POST", "/v1/search"))
        await asyncio.sleep(0.02)
        assert control.searches.rejects({})
        task.cancel()
        await asyncio.sleep(0.02)
        assert control.searches.in_flight == 0

    asyncio.run(scenario())


def test_full_process_rejects_before_the_application_and_counts_nothing_itself() -> None:
    """Ray Serve wraps the server of an ingress with it; a proxy process has no control."""

    async def scenario() -> None:
        app = Application()
        app.released.set()
        early, admission = EarlyRejectionMiddleware(app), Admission(1)
        assert (await request(early, "POST", "/v1/search")).status_code == 200
        set_process_control(replace(FULL, searches=admission))
        assert (await request(early, "POST", "/v1/search")).status_code == 200
        with admission.place():
            paths = (("POST", "/v1/search"), ("GET", "/v1/photos/a"), ("GET", "/healthz"))
            responses = [await request(early, method, path) for method, path in paths]
        assert [response.status_code for response in responses] == [429, 429, 200]
        set_process_control(AdmissionControl(REJECTION))
        assert (await request(early, "POST", "/v1/search")).status_code == 200

    asyncio.run(scenario())
