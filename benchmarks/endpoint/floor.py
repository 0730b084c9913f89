"""The floor: the same interface, encoders and gallery in one uvicorn process, without Ray.

As a good plain engineer would write it: requests that wait while a tower computes are its next batch (no
timer), one thread a tower so that torch never runs beside itself, decoding and search in threads, uvloop.
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import uvicorn
from torch import nn

from serve.api import create_app
from serve.messages import Found, Query, Vector
from serve.settings import read_settings
from stbir.data.transforms import sketch_pixels
from stbir.model import checkpoint
from stbir.model.fusion import fuse
from stbir.retrieval.embed import encode
from stbir.retrieval.gallery import open_gallery

MOST = 32  # of a batch


class Tower:
    """One encoder; what comes while it computes is its next batch."""

    def __init__(self, encoder: nn.Module, collate: Callable[[Sequence[Any]], torch.Tensor]) -> None:
        self.encoder, self.collate = encoder, collate
        self.waiting: list[tuple[Any, asyncio.Future[Vector]]] = []
        self.thread, self.working = ThreadPoolExecutor(1), False

    async def __call__(self, item: Any) -> Vector:
        """The vector (D,) of one item."""
        future: asyncio.Future[Vector] = asyncio.get_running_loop().create_future()
        self.waiting.append((item, future))
        if not self.working:
            self.working = True
            self.task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting:
            batch, self.waiting = self.waiting[:MOST], self.waiting[MOST:]
            vectors = await loop.run_in_executor(self.thread, self._encode, [item for item, _ in batch])
            for (_, future), vector in zip(batch, vectors, strict=True):
                if not future.done():
                    future.set_result(vector)
        self.working = False

    def _encode(self, items: list[Any]) -> list[Vector]:
        return list(encode(self.encoder, self.collate(items)))


class Searcher:
    """All in this process."""

    def __init__(self, checkpoint_uri: str, gallery_uri: str) -> None:
        whole = checkpoint.load(checkpoint_uri)
        self.gate, self.size = whole.gate, whole.sketch.preprocess.size
        self.sketch = Tower(whole.sketch, lambda pixels: torch.from_numpy(np.stack(pixels)))
        self.text = Tower(whole.text, whole.text.tokenize)
        self.opened = open_gallery(gallery_uri, checkpoint.read_digest(checkpoint_uri))

    async def search(self, query: Query) -> Found:
        """The hits of a query."""
        started = time.perf_counter()
        sketch, text = await asyncio.gather(self._sketch(query.sketch), self._text(query.text))
        encoded = time.perf_counter()
        hits = await asyncio.to_thread(self._nearest, sketch, text, query)
        times = {"encode": encoded - started, "search": time.perf_counter() - encoded}
        timing_ms = {step: round(s * 1000, 2) for step, s in times.items()}
        return Found(hits, self.opened.facts.checkpoint, self.opened.version, timing_ms)

    async def _sketch(self, sketch: bytes | None) -> Vector | None:
        if sketch is None:
            return None
        return await self.sketch(await asyncio.to_thread(sketch_pixels, sketch, self.size))

    async def _text(self, text: str | None) -> Vector | None:
        return None if text is None else await self.text(text)

    def _nearest(self, sketch: Vector | None, text: Vector | None, query: Query) -> list[dict[str, Any]]:
        with torch.inference_mode():
            fused = fuse(_row(sketch), _row(text), query.sketch_weight, self.gate)  # (1, D)
        return [asdict(hit) for hit in self.opened.search(fused.numpy(), query.k, query.category)[0]]

    async def thumbnail(self, photo_id: str) -> bytes:
        """The encoded thumbnail of a photo."""
        return await asyncio.to_thread(self.opened.thumbnail, photo_id) or b""

    def info(self) -> dict[str, Any]:
        """What model and gallery are."""
        gallery = {"version": self.opened.version, "count": self.opened.count}
        return {"model": {"checkpoint": self.opened.facts.checkpoint}, "gallery": gallery}

    async def ready(self) -> dict[str, Any]:
        """It is, once it is made."""
        return {}


def _row(vector: Vector | None) -> torch.Tensor | None:
    return None if vector is None else torch.from_numpy(vector)[None]  # (1, D)


def main() -> None:
    """Serve until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--gallery", required=True)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    searcher = Searcher(args.checkpoint, args.gallery)
    app = create_app(searcher, read_settings().limits)
    uvicorn.run(app, host="127.0.0.1", port=args.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
