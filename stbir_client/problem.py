"""From an answer that is a refusal to the error it means."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import httpx

from stbir_client.errors import ProblemError
from stbir_client.line import one_line
from stbir_client.waiting import retry_after


def read_problem(response: httpx.Response) -> ProblemError:
    """The problem details of an answer, or what its status says where a proxy answered in their stead."""
    body = _body(response)
    return ProblemError(
        response.status_code,
        _text(body, "title") or _phrase(response.status_code),
        _text(body, "detail") or _moved(response),
        request_id(response),
        retry_after(response.headers, datetime.now(UTC)),
    )


def request_id(response: httpx.Response) -> str:
    """The name under which the service logs the request: its own, or the one it was sent."""
    sent = response.request.headers.get("x-request-id", "")
    return one_line(response.headers.get("x-request-id") or sent)


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except (ValueError, RecursionError):  # a page of a proxy
        return {}
    return body if isinstance(body, dict) else {}


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    return one_line(value) if isinstance(value, str) else ""


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown status"


def _moved(response: httpx.Response) -> str:
    """Redirects are not followed: the key would go to wherever they point."""
    to = one_line(response.headers.get("location", ""))
    return f"moved to {to}; use that address" if response.is_redirect and to else ""
