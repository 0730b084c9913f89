"""The sketch pad: plain files, no build step, nothing loaded from elsewhere."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

WEB = Path(__file__).parent.parent / "web"
# The page loads nothing from another host, and no other page may frame it. It makes pictures itself (blob:).
POLICY = {
    "default-src": "'self'",
    "img-src": "'self' blob: data:",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
UNUSED = ("camera", "microphone", "geolocation", "payment", "usb", "serial", "midi", "display-capture")
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{kind} {sources}" for kind, sources in POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in UNUSED),
    # Asked for each time and answered with 304: modules of two releases never mix.
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Serve the pad at `/` and what it is made of below `/web`."""

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def pad() -> FileResponse:
        return FileResponse(WEB / "index.html", headers=HEADERS)

    app.mount("/web", _with_headers(StaticFiles(directory=WEB)), name="web")


def _with_headers(files: ASGIApp) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await files(scope, receive, sent)

    return answer
