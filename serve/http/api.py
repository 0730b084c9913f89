"""The HTTP routes on top of a `SearchBackend`. They read requests and write responses, independent of Ray."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi import Query as QueryParameter
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from serve.deadline import Deadline, elapsed_ms
from serve.galleries import DEFAULT_GALLERY
from serve.http.access_log import AccessLogMiddleware, Metrics
from serve.http.admission import AdmissionControl, AdmissionMiddleware
from serve.http.auth import Authenticator, LoopbackOnly
from serve.http.cors import cors_middleware
from serve.http.disconnect import answer_disconnected, cancel_on_disconnect
from serve.http.galleries import Galleries
from serve.http.openapi import set_openapi
from serve.http.page import add_page
from serve.http.paths import GALLERIES, gallery_name, gallery_path
from serve.http.request import read_query
from serve.http.response_headers import HeadersMiddleware
from serve.http.search_backend import SearchBackend
from serve.messages import LargePhoto, SearchResult
from serve.problem import SECURITY_HEADERS, Problem, add_handlers
from serve.settings import Limits

_PNG_SIGNATURE = b"\x89PNG"
_CACHE = "private, max-age=300"  # of photos
PhotoSize = Literal["thumbnail", "large"]
PhotoId = Annotated[str, QueryParameter(description="id of the photo whose score is explained")]
QUERY_FIELDS = ("sketch", "text", "photo_id", "like")


def create_app(
    backend: SearchBackend,
    limits: Limits,
    authenticator: Authenticator | None = None,
    origins: Sequence[str] = (),
    metrics: Metrics | None = None,
    admission: AdmissionControl | None = None,
    galleries: Mapping[str, SearchBackend] | None = None,
) -> FastAPI:
    """The application: `/v1`, health checks, and the pad at `/`.

    authenticator: for `/v1`; None allows requests from this machine only. origins: see `serve.http.cors`.
    admission: the limits of requests in flight; None: there are none. galleries: the backends of galleries
    beside that of `backend`, the default one, by name.
    """
    by_name = Galleries({DEFAULT_GALLERY: backend, **(galleries or {})})
    # Without /docs and /redoc, whose scripts come from another host.
    app = FastAPI(title="stbir", docs_url=None, redoc_url=None)
    add_handlers(app)
    app.add_exception_handler(ClientDisconnect, answer_disconnected)
    routes, checks = _routes(by_name, limits), [Depends(_check(authenticator or LoopbackOnly(origins)))]
    app.include_router(_list(by_name), dependencies=checks)
    app.include_router(routes, prefix="/v1", dependencies=checks)
    of_gallery = f"{GALLERIES}/{{gallery}}"
    app.include_router(routes, prefix=of_gallery, dependencies=checks, include_in_schema=False)
    app.include_router(_health(by_name, limits))
    add_page(app)
    set_openapi(app, limits)
    if admission is not None:
        app.add_middleware(AdmissionMiddleware, control=admission)
    app.add_middleware(cors_middleware, origins=origins)
    app.add_middleware(AccessLogMiddleware, metrics=metrics)
    app.add_middleware(HeadersMiddleware, headers=SECURITY_HEADERS)
    return app


def _check(authenticator: Authenticator) -> Callable[[Request], Awaitable[None]]:
    async def authenticate(request: Request) -> None:
        request.state.client = authenticator.authenticate(request)

    return authenticate


def _list(galleries: Galleries) -> APIRouter:
    routes = APIRouter()

    @routes.get(GALLERIES)
    async def list_galleries(request: Request) -> dict[str, Any]:
        return {"galleries": galleries.describe(request)}

    return routes


def _routes(galleries: Galleries, limits: Limits) -> APIRouter:
    """The routes of a gallery, which its name in the path selects."""
    routes = APIRouter()

    @routes.post("/search")
    async def search(request: Request) -> JSONResponse:
        backend = galleries.backend(request)
        start, deadline = time.perf_counter(), Deadline.after(limits.deadline_s)
        async with _timeout(limits.deadline_s):
            query = await read_query(request, limits)
            request.state.kind = query.kind
            query = replace(query, budget_s=deadline.remaining_s)
            result = await cancel_on_disconnect(request, backend.search(query))
        request.state.timing_ms = result.timing_ms
        return JSONResponse(_body(result, start, gallery_path(gallery_name(request.scope))))

    @routes.post("/explain")
    async def explain(request: Request, hit: PhotoId) -> JSONResponse:
        backend = galleries.backend(request)
        deadline = Deadline.after(limits.deadline_s)
        async with _timeout(limits.deadline_s):
            query = await read_query(request, limits)
            if query.photo_id is not None or (query.sketch is None and query.text is None):
                detail = "a sketch, a text or both are explained; send them in place of a photo"
                raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"query: {detail}")
            query = replace(query, budget_s=deadline.remaining_s)
            explanation = await cancel_on_disconnect(request, backend.explain(query, hit))
        return JSONResponse(asdict(explanation))

    @routes.get("/photos/{photo_id:path}")
    async def photo(request: Request, photo_id: str, size: PhotoSize = "thumbnail") -> Response:
        backend, start = galleries.backend(request), time.perf_counter()
        async with _timeout(limits.deadline_s):
            found = await cancel_on_disconnect(request, _read_photo(backend, photo_id, size))
        request.state.timing_ms = {"fetch": elapsed_ms(start)}
        if not found.image:
            raise Problem(HTTPStatus.NOT_FOUND, f"photo_id: the gallery has no thumbnail of {photo_id!r}")
        media_type = "image/png" if found.image.startswith(_PNG_SIGNATURE) else "image/jpeg"
        # RFC 8288; the page describes the photo.
        link = {"Link": f'<{found.link}>; rel="describedby"'} if found.link else {}
        return Response(found.image, media_type=media_type, headers={"Cache-Control": _CACHE, **link})

    @routes.get("/info")
    async def info(request: Request) -> dict[str, Any]:
        return {**galleries.backend(request).info(), "limits": asdict(limits), "queries": QUERY_FIELDS}

    return routes


async def _read_photo(backend: SearchBackend, photo_id: str, size: PhotoSize) -> LargePhoto:
    if size == "large":
        return await backend.large_photo(photo_id)
    return LargePhoto(await backend.thumbnail(photo_id), None)


def _health(galleries: Galleries, limits: Limits) -> APIRouter:
    routes = APIRouter()

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @routes.get("/readyz")
    async def readyz() -> dict[str, Any]:
        async with _timeout(limits.deadline_s):
            return {"status": "ready", **await galleries.ready()}

    return routes


@asynccontextmanager
async def _timeout(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Problem(HTTPStatus.GATEWAY_TIMEOUT, f"no answer within {seconds} s; try again") from error


def _body(result: SearchResult, start: float, path: str) -> dict[str, Any]:
    return {
        "hits": [{**hit, "uri": f"{path}/photos/{quote(hit['photo_id'], safe='')}"} for hit in result.hits],
        "gallery_version": result.gallery_version,
        "checkpoint": result.checkpoint,
        "timing_ms": {**result.timing_ms, "total": elapsed_ms(start)},
    }
