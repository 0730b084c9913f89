"""Errors as clients get them: problem details (RFC 9457), one sentence that names the remedy."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

MEDIA_TYPE = "application/problem+json"
# Of every response; problems set them themselves, as 500 and a rejection are sent outside the middleware.
# Browsers do not guess a content type, and no page of another site may show a response as an image. The
# pages that `cors.origins` names request with CORS, to which the second does not apply.
SECURITY_HEADERS = {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"}


class Problem(Exception):
    """An error that is answered with `status`, `detail` and `headers`.

    replica_died: the error is the death of a replica, so a retry may succeed.
    """

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})
        self.replica_died = False


def add_handlers(app: FastAPI) -> None:
    """Answer every error of `app` as problem details."""
    app.add_exception_handler(Problem, _handle_problem)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.add_exception_handler(HTTPException, _handle_http_exception)
    app.add_exception_handler(Exception, _handle_exception)


def problem_app(problem: Problem) -> ASGIApp:
    """An application that answers every request with `problem`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await _handle_problem(Request(scope), problem)
        await response(scope, receive, send)

    return app


def _response(
    request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    request_id = getattr(request.state, "request_id", None)
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        "instance": request.url.path,
        "request_id": request_id,
    }
    ids = {"X-Request-Id": request_id} if request_id else {}
    return JSONResponse(body, int(status), {**SECURITY_HEADERS, **ids, **(headers or {})}, MEDIA_TYPE)


async def _handle_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return _response(request, error.status, error.detail, error.headers)


async def _handle_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    detail = error.errors()[0]
    field = ".".join(map(str, detail["loc"]))
    return _response(request, HTTPStatus.UNPROCESSABLE_ENTITY, f"{field}: {detail['msg']}")


async def _handle_http_exception(request: Request, error: Exception) -> JSONResponse:
    """The framework's own errors, as an unknown route or method."""
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {request.url.path}: {error.detail}"
    return _response(request, error.status_code, detail, error.headers)


async def _handle_exception(request: Request, error: Exception) -> JSONResponse:
    """Starlette logs the traceback after this response; the client gets none of it."""
    detail = "internal error; see the server's log"
    return _response(request, HTTPStatus.INTERNAL_SERVER_ERROR, detail)
