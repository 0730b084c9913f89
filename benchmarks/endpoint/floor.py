"""Baseline without Ray: the same interface, encoders, inference backends and gallery in one uvicorn process.

Requests that arrive while an encoder computes form its next batch (no timer). One thread per encoder;
decoding and search in threads; uvloop.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from http import HTTPStatus
from typing import Any

import torch
import uvicorn

from benchmarks.endpoint.sides import server_parser
from serve.deadline import Deadline
from serve.deployments.batching import BatchedEncoder, EncoderLoader, LoadedEncoder
from serve.deployments.large_photo import large_photo
from serve.http.api import create_app
from serve.messages import LargePhoto, Query, SearchResult, Vector
from serve.problem import Problem
from serve.settings import Batching, read_settings
from stbir.embedding.explanation import Explanation
from stbir.gallery.gallery import open_gallery
from stbir.images import decode_sketch
from stbir.model import checkpoint
from stbir.model.fusion import fuse

# No timer: requests that arrive while an encoder computes form its next batch.
BATCHING = Batching(max_batch_size=32, batch_wait_timeout_s=0, max_concurrent_batches=1)
Encode = Callable[[Any, Deadline], Awaitable[Vector]]


def _batched(encoder: LoadedEncoder) -> Encode:
    return partial(BatchedEncoder(BATCHING), encoder)


class Searcher:
    """Encoders and gallery in this process."""

    def __init__(self, checkpoint_uri: str, gallery_uri: str) -> None:
        loader = EncoderLoader("auto")
        sketch, self.gate = loader.load_sketch(checkpoint_uri), checkpoint.load(checkpoint_uri, part="gate")
        self.size: Any = sketch.encoder.preprocess.size
        self.sketch, self.text = _batched(sketch), _batched(loader.load_text(checkpoint_uri))
        self.gallery = open_gallery(gallery_uri, checkpoint.read_digest(checkpoint_uri))

    async def search(self, query: Query) -> SearchResult:
        """The hits of a query."""
        started = time.perf_counter()
        deadline = Deadline.after(query.budget_s)
        sketch, text = await asyncio.gather(
            self._sketch(query.sketch, deadline), self._text(query.text, deadline)
        )
        encoded = time.perf_counter()
        hits = await asyncio.to_thread(self._nearest, sketch, text, query)
        times = {"encode": encoded - started, "search": time.perf_counter() - encoded}
        timing_ms = {step: round(s * 1000, 2) for step, s in times.items()}
        return SearchResult(hits, self.gallery.metadata.checkpoint, self.gallery.version, timing_ms)

    async def _sketch(self, sketch: bytes | None, deadline: Deadline) -> Vector | None:
        if sketch is None:
            return None
        return await self.sketch(await asyncio.to_thread(decode_sketch, sketch, self.size), deadline)

    async def _text(self, text: str | None, deadline: Deadline) -> Vector | None:
        return None if text is None else await self.text(text, deadline)

    def _nearest(self, sketch: Vector | None, text: Vector | None, query: Query) -> list[dict[str, Any]]:
        with torch.inference_mode():
            fused = fuse(_row(sketch), _row(text), query.sketch_weight, self.gate)  # (1, D)
        return [asdict(hit) for hit in self.gallery.search(fused.numpy(), query.k, query.category)[0]]

    async def explain(self, query: Query, photo_id: str) -> Explanation:
        """Raises Problem: explanations are not measured."""
        raise Problem(HTTPStatus.NOT_IMPLEMENTED, "this endpoint answers searches only")

    async def thumbnail(self, photo_id: str) -> bytes:
        """The encoded thumbnail of a photo."""
        return await asyncio.to_thread(self.gallery.thumbnail, photo_id) or b""

    async def large_photo(self, photo_id: str) -> LargePhoto:
        """The original of a photo, reduced for a screen, and its page on the web."""
        return await asyncio.to_thread(large_photo, self.gallery, photo_id)

    def info(self) -> dict[str, Any]:
        """Model and gallery."""
        gallery = {"version": self.gallery.version, "count": self.gallery.count}
        return {"model": {"checkpoint": self.gallery.metadata.checkpoint}, "gallery": gallery}

    async def ready(self) -> dict[str, Any]:
        """Always ready."""
        return {}


def _row(vector: Vector | None) -> torch.Tensor | None:
    return None if vector is None else torch.from_numpy(vector)[None]  # (1, D)


def main() -> None:
    """Serve until interrupted."""
    args = server_parser(__doc__).parse_args()
    searcher = Searcher(args.checkpoint, args.gallery)
    app = create_app(searcher, read_settings().limits)
    uvicorn.run(app, host="127.0.0.1", port=args.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
