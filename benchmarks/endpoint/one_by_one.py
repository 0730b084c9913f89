"""A Flask application that answers one query at a time, as the back end of clip-retrieval."""

import time
from dataclasses import asdict
from threading import Lock
from typing import Any

import torch
from flask import Flask, request
from werkzeug.serving import WSGIRequestHandler

from benchmarks.endpoint.sides import server_parser
from stbir.gallery.gallery import open_gallery
from stbir.images import decode_sketch
from stbir.model import checkpoint


def create_app(checkpoint_uri: str, gallery_uri: str) -> Flask:
    """An application with `POST /v1/search` and the same form."""
    app, lock = Flask("one_by_one"), Lock()
    model = checkpoint.load(checkpoint_uri)
    gallery = open_gallery(gallery_uri, checkpoint.read_digest(checkpoint_uri))

    def search_gallery(sketch: bytes | None, text: str | None, k: int) -> list[dict[str, Any]]:
        size = model.sketch.preprocess.size
        pixels = None if sketch is None else torch.from_numpy(decode_sketch(sketch, size))[None]
        tokens = None if text is None else model.text.tokenize([text])
        with torch.inference_mode():
            query = model.encode_query(pixels, tokens).numpy()  # (1, D)
        return [asdict(hit) for hit in gallery.search(query, k)[0]]

    @app.post("/v1/search")
    def search() -> dict[str, Any]:
        started = time.perf_counter()
        file = request.files.get("sketch")
        with lock:
            hits = search_gallery(file.read() if file else None, request.form.get("text"), k=10)
        return {"hits": hits, "timing_ms": {"total": (time.perf_counter() - started) * 1000}}

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {"status": "ready"}

    return app


class KeepAlive(WSGIRequestHandler):
    """Keeps connections open, as the other servers do."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing: logging is not part of the comparison."""


def main() -> None:
    """Serve until interrupted."""
    args = server_parser(__doc__).parse_args()
    app = create_app(args.checkpoint, args.gallery)
    app.run("127.0.0.1", args.port, threaded=True, request_handler=KeepAlive)


if __name__ == "__main__":
    main()
