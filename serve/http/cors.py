"""Which pages of other origins a browser lets ask: those that are named, and none by default."""

from collections.abc import Sequence

from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from serve.http.access_log import HEADER

PREFLIGHT_S = 600


def allowing(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Wrap an application to answer pages of exactly these origins; a key goes in a header, so no cookies are
    let through."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", HEADER],
        expose_headers=[HEADER, "Retry-After"],
        allow_credentials=False,
        max_age=PREFLIGHT_S,
    )
