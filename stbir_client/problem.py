"""Parses error responses."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import httpx

from stbir_client.errors import ProblemError
from stbir_client.line import one_line
from stbir_client.waiting import parse_retry_after


def parse_problem(response: httpx.Response) -> ProblemError:
    """The problem details of a response, or its status if a proxy answered without them."""
    body = _body(response)
    return ProblemError(
        response.status_code,
        _text(body, "title") or _phrase(response.status_code),
        _text(body, "detail") or _redirect(response),
        request_id(response),
        parse_retry_after(response.headers, datetime.now(UTC)),
    )


def request_id(response: httpx.Response) -> str:
    """The request id in the log of the endpoint: its own if it sent one, else the client's."""
    sent = response.request.headers.get("x-request-id", "")
    return one_line(response.headers.get("x-request-id") or sent)


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except (ValueError, RecursionError):  # for example the HTML page of a proxy
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


def _redirect(response: httpx.Response) -> str:
    """The target of a redirect. It is not followed, since the API key would be sent there."""
    url = one_line(response.headers.get("location", ""))
    return f"moved to {url}; use that address" if response.is_redirect and url else ""
