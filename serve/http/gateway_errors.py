"""Gateway errors: answers 503 as problem details if the ingress dies during a request, not a plain 500.

Serve's proxy loads `middlewares` from RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH (`serve.environment`).
"""

from http import HTTPStatus

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.admission import EarlyRejectionMiddleware
from serve.http.probes import ProbeMiddleware
from serve.problem import Problem, problem_app

RETRY = {"Retry-After": "1"}
UNAVAILABLE = problem_app(
    Problem(HTTPStatus.SERVICE_UNAVAILABLE, "a replica of the service died; try again", RETRY)
)


def middlewares() -> list[Middleware]:
    """The middleware of the proxy, and of an ingress that clients reach without a proxy."""
    return [Middleware(each) for each in (ProbeMiddleware, GatewayErrorMiddleware, EarlyRejectionMiddleware)]


class GatewayErrorMiddleware:
    """Answers a request for which the proxy sends no response: uvicorn would answer a plain 500."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        has_started = False

        async def track(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        await self.app(scope, receive, track)
        if scope["type"] == "http" and not has_started:
            await UNAVAILABLE(scope, receive, send)
