"""Admission control: rejects a search with 429 before its body is read when too many are in flight."""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

SEARCH = "/v1/search"
# From the number of searches in flight to the application that rejects the next one, or None to admit it.
AdmissionPolicy = Callable[[int], ASGIApp | None]

# The policy of the ingress in this process, if there is one. Behind HAProxy, which connects to the ingress
# directly, it rejects a search before Ray Serve's own request handling, the larger part of the cost.
_process_policy: list[AdmissionPolicy] = []


def set_process_policy(policy: AdmissionPolicy) -> None:
    """Apply `policy` to every request that reaches this process."""
    _process_policy[:] = [policy]


def process_policy(in_flight: int) -> ASGIApp | None:
    """The decision of this process's policy; None if there is none."""
    return _process_policy[0](in_flight) if _process_policy else None


class AdmissionMiddleware:
    """Admits searches while `policy` allows it, and calls `on_change` with the number in flight."""

    def __init__(
        self,
        app: ASGIApp,
        policy: AdmissionPolicy = process_policy,
        on_change: Callable[[int], None] | None = None,
    ) -> None:
        self.app, self.policy, self.on_change, self.in_flight = app, policy, on_change, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        is_search = scope["type"] == "http" and scope["path"] == SEARCH and scope["method"] == "POST"
        if not is_search:
            await self.app(scope, receive, send)
        elif rejection := self.policy(self.in_flight):
            await rejection(scope, receive, send)
        else:
            await self._admit(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Counted here and not in the coalescing queue: the bodies of searches that arrive at the same moment
        # would all be read before the first of them is queued.
        self._count(1)
        try:
            await self.app(scope, receive, send)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self.in_flight += change
        if self.on_change:
            self.on_change(self.in_flight)
