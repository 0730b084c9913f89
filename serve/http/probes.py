"""Health checks from the last answer: probes, however many, cost the application one request a second."""

import asyncio
import logging
import time
from copy import deepcopy
from dataclasses import dataclass
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.paths import PROBES
from serve.problem import Problem, problem_app

log = logging.getLogger(__name__)
REFRESH_S = 1.0
MAX_AGE_S = 10.0  # of an answer; then 503
IDLE_S = 60.0  # without probes, until the refreshes end
_OUTDATED = problem_app(
    Problem(HTTPStatus.SERVICE_UNAVAILABLE, "no health check is answered; try again", {"Retry-After": "1"})
)


@dataclass(frozen=True)
class Answer:
    """The ASGI messages of a response, and the monotonic time of the request for it, in seconds."""

    messages: list[Message]
    requested_at_s: float


class Probe:
    """The last answer of `app` to one probe, refreshed while probes come."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        # Without the headers of one client, as the answer is for all.
        headers = [(name, value) for name, value in scope["headers"] if name == b"host"]
        self._app, self._scope = app, {**scope, "headers": headers}
        self._answer: Answer | None = None
        self._is_first_done = asyncio.Event()
        self._probed_at_s = time.monotonic()
        self._task = asyncio.create_task(self._refresh_while_probed())

    @property
    def is_idle(self) -> bool:
        """Whether the answer is refreshed no more."""
        return self._task.done()

    async def answer(self) -> Answer | None:
        """The last answer; None if it is too old. Only the first probe waits for one."""
        self._probed_at_s = time.monotonic()
        await self._is_first_done.wait()
        is_valid = self._answer and time.monotonic() - self._answer.requested_at_s <= MAX_AGE_S
        return self._answer if is_valid else None

    async def _refresh_while_probed(self) -> None:
        while time.monotonic() - self._probed_at_s < IDLE_S:
            try:
                async with asyncio.timeout(MAX_AGE_S):
                    self._answer = await self._request()
            except Exception:
                log.warning("%s: no answer", self._scope["path"], exc_info=True)
            self._is_first_done.set()
            await asyncio.sleep(REFRESH_S)

    async def _request(self) -> Answer:
        answer = Answer([], time.monotonic())

        async def send(message: Message) -> None:
            answer.messages.append(message)

        await self._app({**self._scope, "state": {}}, _empty_body(), send)
        return answer


class ProbeMiddleware:
    """Answers a probe with the last answer of `app`. Serve's proxy runs it, in front of all queues."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._probes: dict[str, Probe] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        path = scope["path"] if scope["type"] == "http" and scope["method"] == "GET" else None
        if path not in PROBES:
            await self.app(scope, receive, send)
            return
        if path not in self._probes or self._probes[path].is_idle:
            self._probes[path] = Probe(self.app, scope)
        answer = await self._probes[path].answer()
        if answer is None:
            await _OUTDATED(scope, receive, send)
            return
        for message in answer.messages:
            await send(deepcopy(message))  # the server's own middleware adds headers to it


def _empty_body() -> Receive:
    """The messages of a client that sends no body and does not hang up."""
    messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    return receive
