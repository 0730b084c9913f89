"""The three deployments behind the ingress: one tower each, and the one that fuses and searches.

Each is a plain class; `serve.app` makes deployments of them. What they raise is `InputError`.
"""

import asyncio
import math
import time
from dataclasses import asdict
from threading import Lock
from typing import Any

import numpy as np
import torch

from serve import budget
from serve.batching import BatchedEncoder
from serve.messages import Encoded, Found
from serve.recent import Recent
from serve.settings import Batching
from stbir.data.manifest import NAME
from stbir.data.storage import Folder
from stbir.data.transforms import Pixels, sketch_pixels
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.fusion import fuse
from stbir.retrieval.gallery import Gallery, open_gallery

MISSING_RETRY_S = 2.0  # how often a gallery that is not there yet is looked for


class SketchReplica:
    """Sketches → vectors. Holds the sketch tower only."""

    def __init__(self, checkpoint_uri: str, batching: Batching) -> None:
        encoder = checkpoint.load(checkpoint_uri, part="sketch")
        self.size = encoder.preprocess.size
        self.encoder = BatchedEncoder(encoder, _stack, batching)
        self.encoder.encode([np.zeros((1, self.size, self.size), np.uint8)])  # the first pass is a slow one

    async def encode(self, sketch: bytes, deadline: float = math.inf) -> Encoded:
        """One encoded picture. Raises InputError, naming `sketch`, where it is cut short, and LateError."""
        budget.check(deadline)
        started = time.perf_counter()
        pixels = await asyncio.to_thread(sketch_pixels, sketch, self.size)  # (1, size, size)
        decoded = time.perf_counter()
        vector = await self.encoder(pixels, deadline)
        return Encoded(vector, {"decode": _ms(started, decoded), "encode_sketch": _ms(decoded)})

    async def ready(self) -> bool:
        """Whether it answers at all."""
        return True


class TextReplica:
    """Words → vectors. Holds the text tower only."""

    def __init__(self, checkpoint_uri: str, batching: Batching, recent: int = 0) -> None:
        """`recent`: of how many texts, those asked for last, the vectors are kept."""
        encoder = checkpoint.load(checkpoint_uri, part="text")
        self.recent = Recent(recent)
        self.encoder = BatchedEncoder(encoder, encoder.tokenize, batching)
        self.encoder.encode([""])

    async def encode(self, text: str, deadline: float = math.inf) -> Encoded:
        """One text; beyond the tower's context length it is cut. Raises LateError."""
        budget.check(deadline)
        started = time.perf_counter()
        vector = self.recent.get(text)
        if vector is None:
            vector = await self.encoder(text, deadline)
            self.recent.put(text, vector)
        return Encoded(vector, {"encode_text": _ms(started)})

    async def ready(self) -> bool:
        """Whether it answers at all."""
        return True


class FusionReplica:
    """Vectors → hits. Holds the gallery; Serve runs its plain methods in threads, beside the event loop."""

    def __init__(self, checkpoint_uri: str, checkpoint_digest: str, gallery_uri: str) -> None:
        self.gate = checkpoint.load(checkpoint_uri, part="gate")
        self.digest, self.uri = checkpoint_digest, gallery_uri
        self._gallery: Gallery | None = None
        self._looked, self._lock = -math.inf, Lock()
        self.gallery()

    def gallery(self) -> Gallery | None:
        """The published gallery, or None while there is none. Raises InputError for another checkpoint's."""
        with self._lock:
            if self._gallery is None and time.monotonic() - self._looked >= MISSING_RETRY_S:
                self._looked = time.monotonic()
                self._gallery = open_if_published(self.uri, self.digest)
            return self._gallery

    def search(
        self,
        sketch: Encoded | None,
        text: Encoded | None,
        sketch_weight: float,
        k: int,
        category: str | None,
        photo_id: str | None = None,
    ) -> Found | None:
        """The `k` best photos for what there is of a query; None while no gallery is published.

        `photo_id`: a photo in place of a sketch, which is not among its own hits. Raises InputError, naming
        it, where the gallery has no such photo.
        """
        gallery, started = self.gallery(), time.perf_counter()
        if gallery is None:
            return None
        # The gate knows sketches only, and a photo would be the first of its own hits.
        drawn, gate, more = _row(sketch), self.gate, 0
        if photo_id is not None:
            drawn, gate, more = _like(gallery, photo_id), None, 1
        with torch.inference_mode():
            query_BD = fuse(drawn, _row(text), sketch_weight, gate)  # (1, D)
        fused = time.perf_counter()
        hits = gallery.search(query_BD.numpy(), k + more, category)[0]
        found = [asdict(hit) for hit in hits if hit.photo_id != photo_id][:k]
        timing = {**(sketch.timing_ms if sketch else {}), **(text.timing_ms if text else {})}
        return Found(found, gallery.version, {**timing, "fuse": _ms(started, fused), "search": _ms(fused)})

    def thumbnail(self, photo_id: str) -> bytes | None:
        """The encoded thumbnail of a photo, empty where it has none; None while no gallery is published."""
        gallery = self.gallery()
        return None if gallery is None else gallery.thumbnail(photo_id) or b""

    def describe(self) -> dict[str, Any] | None:
        """What the gallery holds; None while none is published."""
        gallery = self.gallery()
        if gallery is None:
            return None
        return {"version": gallery.version, "count": gallery.count, "categories": gallery.categories}


def open_if_published(uri: str, checkpoint_digest: str) -> Gallery | None:
    """The published gallery, or None while there is none. Raises InputError for another checkpoint's."""
    return open_gallery(uri, checkpoint_digest) if Folder(uri).exists(NAME) else None


def _stack(pixels: Any) -> torch.Tensor:
    batch: Pixels = np.stack(pixels)  # (B, 1, size, size)
    return torch.from_numpy(batch)


def _like(gallery: Gallery, photo_id: str) -> torch.Tensor:
    vector = gallery.vector(photo_id)
    if vector is None:
        raise InputError(f"photo_id: {photo_id!r} is not in the gallery")
    return torch.from_numpy(vector)[None]  # (1, D)


def _row(encoded: Encoded | None) -> torch.Tensor | None:
    return None if encoded is None else torch.from_numpy(encoded.vector.copy())[None]  # (1, D)


def _ms(start: float, end: float | None = None) -> float:
    return round(((time.perf_counter() if end is None else end) - start) * 1000, 2)
