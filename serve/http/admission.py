"""Turns searches away at the door while as many are inside as may be: what is not read costs little."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.problem import Problem, answer

SEARCH = "/v1/search"
# From how many searches are inside, being read or waiting or answered, to what turns the next one away; None:
# it may come in.
Closed = Callable[[int], ASGIApp | None]

# The door of the ingress that lives in this process, if one does. Where callers reach it without Ray's proxy
# (HAProxy), a search is turned away before Serve's own work for it: that costs more than all of ours.
_of_this_process: list[Closed] = []


def keep(closed: Closed) -> None:
    """Let `closed` decide for every request that reaches this process."""
    _of_this_process[:] = [closed]


def this_process(inside: int) -> ASGIApp | None:
    """What turns searches away that reach this process now."""
    return next((away for closed in _of_this_process if (away := closed(inside)) is not None), None)


class TurnedAway:
    """Answers every request with a problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        await answer(Request(scope), self.problem)(scope, receive, send)


class Door:
    """Wraps an application, and lets searches in while `closed` says nothing against it; `told` hears how
    many are inside."""

    def __init__(
        self, app: ASGIApp, closed: Closed = this_process, told: Callable[[int], None] | None = None
    ) -> None:
        self.app, self.closed, self.told, self.inside = app, closed, told, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        asks = scope["type"] == "http" and scope["path"] == SEARCH and scope["method"] == "POST"
        if not asks:
            await self.app(scope, receive, send)
        elif away := self.closed(self.inside):
            await away(scope, receive, send)
        else:
            await self._let_in(scope, receive, send)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        # From here on and not from where it waits for a group: searches that all arrive in one moment would
        # all be read before the first of them waits.
        self._count(1)
        try:
            await self.app(scope, receive, send)
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        self.inside += more
        if self.told:
            self.told(self.inside)
