"""The access log: one JSON line a request with its id, never the API key, query text or images."""

import json
import logging
import re
import sys
import time
import uuid
from http import HTTPStatus
from typing import Protocol

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.deadline import elapsed_ms
from serve.http.paths import PROBES, V1, gallery_name, route_path

log = logging.getLogger("stbir.access")
HEADER = "X-Request-Id"
# Any other kind is counted as "other", so that clients cannot create metric series at will.
KINDS = (
    "sketch",
    "text",
    "sketch+text",
    "photo",
    "photo+text",
    "search",
    "explain",
    "photos",
    "info",
    "galleries",
)
_VALID_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def configure_logging() -> None:
    """Write the lines unchanged to standard error, which Ray collects."""
    if not log.handlers:
        # Not sys.stderr: Serve replaces it by a stream that inspects the stack for each line.
        handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


class Metrics(Protocol):
    """Metrics of requests to `/v1`."""

    def record_request(
        self, kind: str, status: int, duration_ms: float, gallery: str, key: str | None
    ) -> None:
        """Count one answered request. `key`: the name of its API key; None if it has none."""

    def record_steps(self, timing_ms: dict[str, float], gallery: str) -> None:
        """Record the time of each step of a search, or of a photo's fetch."""

    def set_in_flight(self, count: int) -> None:
        """Set the number of searches in flight."""


class AccessLogMiddleware:
    """Sets the request id, then logs and measures each request once its response is sent.

    A successful health check, which is repeated every second, is not logged.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics | None = None) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), int(HTTPStatus.INTERNAL_SERVER_ERROR)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id(Headers(scope=scope).get(HEADER))

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = state["request_id"]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            duration_ms = elapsed_ms(start)
            if route_path(scope) not in PROBES or status != HTTPStatus.OK:
                log.info(_line(scope, status, duration_ms))
            if self.metrics is not None and route_path(scope).startswith(V1):
                gallery = gallery_name(scope)
                self.metrics.record_request(_kind(scope), status, duration_ms, gallery, _client_name(scope))
                self.metrics.record_steps(state.get("timing_ms", {}), gallery)


def _kind(scope: Scope) -> str:
    """The modalities of a search, else the path segment after /v1."""
    kind: str = scope["state"].get("kind") or route_path(scope).split("/")[2]
    return kind if kind in KINDS else "other"


def _client_name(scope: Scope) -> str | None:
    client = scope["state"].get("client")
    return None if client is None else client.name


def request_id(header: str | None) -> str:
    """The client's id if it is safe to log, else a new one."""
    return header if header and _VALID_ID.fullmatch(header) else uuid.uuid4().hex


def _line(scope: Scope, status: int, duration_ms: float) -> str:
    fields = {
        "id": scope["state"]["request_id"],
        "who": _client_name(scope),
        "method": scope["method"],
        "path": scope["path"],  # without the query string, which may hold secrets
        "status": status,
        "ms": duration_ms,
    }
    return json.dumps(fields)
