"""Turns searches away at the door while no place is left: what is not read costs next to nothing."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.problem import Problem, answer

SEARCH = "/v1/search"
Closed = Callable[[], ASGIApp | None]  # what answers in place of the application; None: it is open

# The door of the ingress that lives in this process, if one does. Where callers reach it without Ray's proxy
# (HAProxy), a search is turned away before Serve's own work for it: that costs more than all of ours.
_of_this_process: list[Closed] = []


def keep(closed: Closed) -> None:
    """Let `closed` decide for every request that reaches this process."""
    _of_this_process[:] = [closed]


def this_process() -> ASGIApp | None:
    """What answers searches that reach this process now, in place of what serves it."""
    return next((answers for closed in _of_this_process if (answers := closed()) is not None), None)


class TurnedAway:
    """Answers every request with a problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        await answer(Request(scope), self.problem)(scope, receive, send)


class Door:
    """Wraps an application: while `closed` gives another, searches are that one's."""

    def __init__(self, app: ASGIApp, closed: Closed = this_process) -> None:
        self.app, self.closed = app, closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        asks = scope["type"] == "http" and scope["path"] == SEARCH and scope["method"] == "POST"
        instead = self.closed() if asks else None
        await (instead or self.app)(scope, receive, send)
