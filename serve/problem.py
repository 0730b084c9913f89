"""Errors as the client sees them: problem details (RFC 9457), one sentence that says what to do."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """A request that gets `status` and `detail` for an answer."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})
        self.lost = False  # whether a replica died with the request in it


def add_handlers(app: FastAPI) -> None:
    """Answer every error of `app` as problem details."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)


def _answer(
    request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        "instance": request.url.path,
        "request_id": getattr(request.state, "request_id", None),
    }
    return JSONResponse(body, int(status), headers, MEDIA_TYPE)


def answer(request: Request, problem: Problem) -> JSONResponse:
    """What the client of a request hears."""
    return _answer(request, problem.status, problem.detail, problem.headers)


async def _problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return answer(request, error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _answer(
        request, HTTPStatus.UNPROCESSABLE_ENTITY, f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    )


async def _http(request: Request, error: Exception) -> JSONResponse:
    """The framework's own errors: no such route, no such method."""
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {request.url.path}: {error.detail}"
    return _answer(request, error.status_code, detail, error.headers)


async def _bug(request: Request, error: Exception) -> JSONResponse:
    """Starlette logs the traceback after this answer is sent; the client gets none of it."""
    return _answer(
        request, HTTPStatus.INTERNAL_SERVER_ERROR, "this is a fault of the server; its log says more"
    )
