"""What Serve's proxy answers where the ingress died with a request in it: 503 as a problem, no bare 500.

The proxy calls `middlewares` where RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH says so (`serve.environment`).
"""

import json
from http import HTTPStatus

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.problem import MEDIA_TYPE

RETRY_AFTER_S = 1


def middlewares() -> list[Middleware]:
    """What stands around every request of a proxy."""
    return [Middleware(AnswerTheLost)]


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
            await _answer(scope["path"], send)


async def _answer(path: str, send: Send) -> None:
    status = HTTPStatus.SERVICE_UNAVAILABLE
    problem = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": "a part of the service was lost; try again",
        "instance": path,
        "request_id": None,
    }
    body = json.dumps(problem).encode()
    headers = {
        "content-type": MEDIA_TYPE,
        "content-length": str(len(body)),
        "retry-after": str(RETRY_AFTER_S),
    }
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": int(status), "headers": raw})
    await send({"type": "http.response.body", "body": body})
