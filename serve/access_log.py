"""A line of JSON a request, with the id that the client gave it or gets: never its key, words or picture."""

import json
import logging
import re
import time
import uuid
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("stbir.access")
HEADER = "X-Request-Id"
_FIT = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def to_stderr() -> None:
    """Write the lines, as they are, where Ray gathers what a replica prints."""
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


class AccessLog:
    """Wraps an application: ids in and out, one line when the answer is sent."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

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
            log.info(_line(scope, status, started))


def request_id(given: str | None) -> str:
    """The client's own where it is fit to stand in a log, else a new one."""
    return given if given and _FIT.fullmatch(given) else uuid.uuid4().hex


def _line(scope: Scope, status: int, started: float) -> str:
    state = scope["state"]
    told = {
        "id": state["request_id"],
        "who": state.get("who"),
        "method": scope["method"],
        "path": scope["path"],  # without its query string
        "status": status,
        "ms": round((time.perf_counter() - started) * 1000, 2),
    }
    return json.dumps(told)
