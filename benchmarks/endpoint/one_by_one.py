"""A Flask application that answers one query at a time, as clip-retrieval's back end is built."""

import argparse
import time
from dataclasses import asdict
from threading import Lock
from typing import Any

import torch
from flask import Flask, request
from werkzeug.serving import WSGIRequestHandler

from stbir.gallery.gallery import open_gallery
from stbir.images import sketch_pixels
from stbir.model import checkpoint


def create_app(checkpoint_uri: str, gallery_uri: str) -> Flask:
    """`POST /v1/search` with the form of ours."""
    app, one_at_a_time = Flask("one_by_one"), Lock()
    model = checkpoint.load(checkpoint_uri)
    gallery = open_gallery(gallery_uri, checkpoint.read_digest(checkpoint_uri))

    def found(sketch: bytes | None, text: str | None, k: int) -> list[dict[str, Any]]:
        size = model.sketch.preprocess.size
        pixels = None if sketch is None else torch.from_numpy(sketch_pixels(sketch, size))[None]
        tokens = None if text is None else model.text.tokenize([text])
        with torch.inference_mode():
            query = model.encode_query(pixels, tokens).numpy()  # (1, D)
        return [asdict(hit) for hit in gallery.search(query, k)[0]]

    @app.post("/v1/search")
    def search() -> dict[str, Any]:
        started = time.perf_counter()
        file = request.files.get("sketch")
        with one_at_a_time:
            hits = found(file.read() if file else None, request.form.get("text"), k=10)
        return {"hits": hits, "timing_ms": {"total": (time.perf_counter() - started) * 1000}}

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {"status": "ready"}

    return app


class KeepAlive(WSGIRequestHandler):
    """As the other two: a connection serves more than one request."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: printing a line a request is no part of what is compared."""


def main() -> None:
    """Serve until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--gallery", required=True)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    app = create_app(args.checkpoint, args.gallery)
    app.run("127.0.0.1", args.port, threaded=True, request_handler=KeepAlive)


if __name__ == "__main__":
    main()
