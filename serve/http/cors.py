"""CORS: pages of the configured origins may call the endpoint; by default none may."""

from collections.abc import Sequence

from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from serve.http.access_log import HEADER

PREFLIGHT_S = 600


def cors_middleware(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """`app`, callable from pages of exactly these origins. Keys travel in a header: no cookies."""
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
