"""The sketch pad: static files without a build step or third-party hosts."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from serve.http.response_headers import HeadersMiddleware

WEB = Path(__file__).parent.parent / "web"
# No resources from other hosts and no framing by other pages. The pad creates images itself (blob:).
POLICY = {
    "default-src": "'self'",
    "img-src": "'self' blob: data:",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{directive} {sources}" for directive, sources in POLICY.items()),
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=(), serial=(), midi=(),"
    " display-capture=()",
    # Browsers revalidate every file (304), so that modules of two releases never mix.
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Serve the pad at `/` and its files below `/web`."""

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def pad() -> FileResponse:
        return FileResponse(WEB / "index.html", headers=HEADERS)

    app.mount("/web", HeadersMiddleware(StaticFiles(directory=WEB), HEADERS), name="web")
