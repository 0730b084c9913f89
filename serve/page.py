"""The sketch pad: plain files, no build step, nothing loaded from elsewhere."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

WEB = Path(__file__).with_name("web")
# The page loads nothing from another host, and no other page may frame it.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Serve the pad at `/` and what it is made of below `/web`."""

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def pad() -> FileResponse:
        return FileResponse(WEB / "index.html", headers=HEADERS)

    app.mount("/web", StaticFiles(directory=WEB), name="web")
