"""Admission control: rejects a request with 429 before its body is read when too many are in flight.

It also rejects one that would be answered too late. It is the only limit of an ingress. Searches and
thumbnails have one each: neither keeps the other out.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.http.paths import EXPLAIN, SEARCH, THUMBNAILS, route_path


class Admission:
    """The requests of one kind in flight in this process; calls `on_change` with their number.

    `is_late` tells whether a request would be answered too late, however few are in flight.
    """

    def __init__(
        self,
        max_in_flight: float = math.inf,
        on_change: Callable[[int], None] | None = None,
        is_late: Callable[[Scope], bool] = lambda scope: False,
    ) -> None:
        self._max_in_flight, self._on_change, self._is_late = max_in_flight, on_change, is_late
        self.in_flight = 0

    def rejects(self, scope: Scope) -> bool:
        """Whether a request that arrives now is rejected."""
        return self.in_flight >= self._max_in_flight or self._is_late(scope)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Counts a request from its admission: others that arrive now must not read their bodies first."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self.in_flight += change
        if self._on_change:
            self._on_change(self.in_flight)


@dataclass(frozen=True)
class AdmissionControl:
    """The admission of each kind of request, and the application that answers a rejected one."""

    rejection: ASGIApp
    searches: Admission = field(default_factory=Admission)
    thumbnails: Admission = field(default_factory=Admission)

    def of(self, scope: Scope) -> Admission | None:
        """The admission that counts a request; None: it is not limited, as a health check."""
        if scope["type"] != "http":
            return None
        path = route_path(scope)
        if path in (SEARCH, EXPLAIN) and scope["method"] == "POST":
            return self.searches
        return self.thumbnails if path.startswith(THUMBNAILS) else None


class AdmissionMiddleware:
    """Admits a request, or rejects it unread."""

    def __init__(self, app: ASGIApp, control: AdmissionControl) -> None:
        self.app, self.control = app, control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        admission = self.control.of(scope)
        if admission is None:
            await self.app(scope, receive, send)
        elif admission.rejects(scope):
            await self.control.rejection(scope, receive, send)
        else:
            with admission.place():
                await self.app(scope, receive, send)


# The control of the ingress in this process, if there is one. Behind HAProxy, which connects to the ingress
# directly, it rejects a request before Ray Serve's own handling, the larger part of the cost.
_process_control: list[AdmissionControl] = []


def set_process_control(control: AdmissionControl) -> None:
    """Apply the limits of `control` to every request that reaches this process; it counts nothing there."""
    _process_control[:] = [control]


class EarlyRejectionMiddleware:
    """Rejects a request if the control of this process is full. The process of a proxy has none."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        for control in _process_control:
            admission = control.of(scope)
            if admission is not None and admission.rejects(scope):
                await control.rejection(scope, receive, send)
                return
        await self.app(scope, receive, send)
