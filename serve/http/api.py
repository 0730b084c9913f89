"""The HTTP interface, over anything that searches: it knows requests and answers, and nothing of Ray."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from serve.deadline import elapsed_ms
from serve.http.access_log import AccessLog, Meter
from serve.http.admission import Closed, Door
from serve.http.auth import Guard, ThisMachineOnly
from serve.http.cors import allowing
from serve.http.openapi import describe
from serve.http.page import add_page
from serve.http.request import read_query
from serve.messages import Found, Query
from serve.problem import Problem, add_handlers
from serve.settings import Limits

_PNG = b"\x89PNG"
QUERIES = ("sketch", "text", "photo_id")  # what a search may go by


class Searches(Protocol):
    """What stands behind the routes. Its methods raise Problem for what the client should hear of."""

    async def search(self, query: Query) -> Found:
        """The hits of a query."""

    async def thumbnail(self, photo_id: str) -> bytes:
        """The encoded thumbnail of a photo, empty where it has none."""

    def info(self) -> dict[str, Any]:
        """What `model` is, and `gallery`: None while none is published."""

    async def ready(self) -> dict[str, Any]:
        """By what searches are answered."""


def create_app(
    searcher: Searches,
    limits: Limits,
    guard: Guard | None = None,
    origins: Sequence[str] = (),
    meter: Meter | None = None,
    closed: Closed = lambda inside: None,
) -> FastAPI:
    """The application: `/v1`, which `guard` keeps (None: for this machine), health, and the pad at `/`.

    `origins`: whose pages may ask, beside the pad. `closed`: what turns searches away while too many are
    inside (`serve.http.admission`).
    """
    # Without /docs and /redoc: they load their scripts from another host.
    app = FastAPI(title="stbir", docs_url=None, redoc_url=None)
    add_handlers(app)
    app.include_router(_v1(searcher, limits), dependencies=[Depends(_kept_by(guard or ThisMachineOnly()))])
    app.include_router(_health(searcher, limits))
    add_page(app)
    describe(app, limits)
    app.add_middleware(Door, closed=closed, told=meter.inside if meter else None)
    app.add_middleware(allowing, origins=origins)
    app.add_middleware(AccessLog, meter=meter)
    return app


def _kept_by(guard: Guard) -> Callable[[Request], Awaitable[None]]:
    async def admitted(request: Request) -> None:
        request.state.who = guard.admit(request)

    return admitted


def _v1(searcher: Searches, limits: Limits) -> APIRouter:
    routes = APIRouter(prefix="/v1")

    @routes.post("/search")
    async def search(request: Request) -> JSONResponse:
        started = time.perf_counter()
        deadline = time.time() + limits.deadline_s
        async with _deadline(limits.deadline_s):
            query = await read_query(request, limits)
            request.state.kind = query.kind
            found = await searcher.search(replace(query, deadline=deadline))
        request.state.timing_ms = found.timing_ms
        return JSONResponse(_answer(found, started))

    @routes.get("/photos/{photo_id:path}")
    async def photo(request: Request, photo_id: str) -> Response:
        started = time.perf_counter()
        async with _deadline(limits.deadline_s):
            data = await searcher.thumbnail(photo_id)
        request.state.timing_ms = {"fetch": elapsed_ms(started)}
        if not data:
            raise Problem(HTTPStatus.NOT_FOUND, f"photo_id: no thumbnail of {photo_id!r} in the gallery")
        kind = "image/png" if data.startswith(_PNG) else "image/jpeg"
        return Response(data, media_type=kind, headers={"Cache-Control": "private, max-age=300"})

    @routes.get("/info")
    async def info() -> dict[str, Any]:
        return {**searcher.info(), "limits": asdict(limits), "queries": QUERIES}

    return routes


def _health(searcher: Searches, limits: Limits) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @routes.get("/readyz")
    async def readyz() -> dict[str, Any]:
        async with _deadline(limits.deadline_s):
            return {"status": "ready", **await searcher.ready()}

    return routes


@asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Problem(HTTPStatus.GATEWAY_TIMEOUT, f"no answer within {seconds} s; try again") from error


def _answer(found: Found, started: float) -> dict[str, Any]:
    return {
        "hits": [{**hit, "uri": f"/v1/photos/{quote(hit['photo_id'], safe='')}"} for hit in found.hits],
        "gallery_version": found.gallery_version,
        "checkpoint": found.checkpoint,
        "timing_ms": {**found.timing_ms, "total": elapsed_ms(started)},
    }
