"""A line of JSON a request, with the id that the client gave it or gets: never its key, words or picture."""

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

log = logging.getLogger("stbir.access")
HEADER = "X-Request-Id"
# Else whoever asks for names of his own making makes as many series of figures.
KINDS = ("sketch", "text", "sketch+text", "photo", "photo+text", "search", "photos", "info")
_FIT = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def to_stderr() -> None:
    """Write the lines, as they are, where Ray gathers what a replica prints."""
    if not log.handlers:
        # Not sys.stderr: what Serve puts in its place looks up the stack for each line.
        handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


class Meter(Protocol):
    """Hears of what `/v1` was asked for."""

    def answered(self, kind: str, status: int, took_ms: float) -> None:
        """A request has its answer."""

    def stepped(self, timing_ms: dict[str, float]) -> None:
        """A search has its hits, or a photo was fetched: how long each step took."""

    def inside(self, count: int) -> None:
        """So many searches are inside now."""


class AccessLog:
    """Wraps an application: ids in and out, one line when the answer is sent, and a word to `meter`."""

    def __init__(self, app: ASGIApp, meter: Meter | None = None) -> None:
        self.app, self.meter = app, meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), int(HTTPStatus.INTERNAL_SERVER_ERROR)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id(Headers(scope=scope).get(HEADER))

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = state["request_id"]
            await send(message)

        try:
            await self.app(scope, receive, with_id)
        finally:
            took_ms = elapsed_ms(started)
            log.info(_line(scope, status, took_ms))
            if self.meter is not None and scope["path"].startswith("/v1/"):
                self.meter.answered(_kind(scope), status, took_ms)
                self.meter.stepped(state.get("timing_ms", {}))


def _kind(scope: Scope) -> str:
    """What a search asked by; else the word of its route after /v1."""
    kind: str = scope["state"].get("kind") or scope["path"].split("/")[2]
    return kind if kind in KINDS else "other"


def request_id(given: str | None) -> str:
    """The client's own where it is fit to stand in a log, else a new one."""
    return given if given and _FIT.fullmatch(given) else uuid.uuid4().hex


def _line(scope: Scope, status: int, took_ms: float) -> str:
    state = scope["state"]
    told = {
        "id": state["request_id"],
        "who": state.get("who"),
        "method": scope["method"],
        "path": scope["path"],  # without its query string
        "status": status,
        "ms": took_ms,
    }
    return json.dumps(told)
