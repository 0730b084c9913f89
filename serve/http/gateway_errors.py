"""What Serve's proxy answers where the ingress died with a request in it: 503 as a problem, no bare 500.

The proxy calls `middlewares` where RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH says so (`serve.environment`).
"""

from http import HTTPStatus

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.admission import Door, TurnedAway
from serve.problem import Problem

LOST = TurnedAway(
    Problem(HTTPStatus.SERVICE_UNAVAILABLE, "a part of the service was lost; try again", {"Retry-After": "1"})
)


def middlewares() -> list[Middleware]:
    """What stands around every request of a proxy, and of an ingress that callers reach without one."""
    return [Middleware(AnswerTheLost), Middleware(Door)]


class AnswerTheLost:
    """Wraps the proxy, which says nothing at all where a replica is gone: uvicorn makes a 500 of that."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        await self.app(scope, receive, noted)
        if scope["type"] == "http" and not started:
            await LOST(scope, receive, send)
