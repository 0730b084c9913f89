"""The three deployments behind the ingress: one tower each, and the one that fuses and searches.

Each is a plain class; `serve.app` makes deployments of them. Every request says by which release it is to be
answered, and they hold two: so an answer is of one release throughout, and nobody waits for a new one.
What they raise is `InputError`, or `LateError`.
"""

import asyncio
import math
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from serve import budget
from serve.batching import BatchedEncoder, Tower, tower
from serve.generations import Generations
from serve.messages import Encoded, Found, Query, Release
from serve.meters import BatchMeter, RecentMeter
from serve.recent import Recent
from serve.release import Ahead, resolve
from serve.settings import Batching
from stbir.data.transforms import Pixels, encode_png, render_strokes, sketch_pixels
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.fusion import fuse
from stbir.retrieval.gallery import Gallery, open_gallery
from stbir.retrieval.local import Cache

CANARY_STROKES = [[(0.2, 0.2), (0.8, 0.3), (0.5, 0.8), (0.2, 0.2)]]
CANARY_TEXT = "a canary"


class SketchReplica:
    """Sketches → vectors. Holds the sketch tower only."""

    def __init__(self, batching: Batching) -> None:
        self.towers = Generations(_sketch_tower)
        self.encoder = BatchedEncoder(batching, BatchMeter("sketch"))
        self.ahead = Ahead(lambda release: self.towers.get(release.checkpoint))

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Told by Serve what to serve (`serve.release.Wanted`): at the start, and with every change."""
        await self.ahead(user_config)

    async def encode(self, sketch: bytes, checkpoint_uri: str, deadline: float = math.inf) -> Encoded:
        """One encoded picture. Raises InputError, naming `sketch`, where it is cut short, and LateError."""
        budget.check(deadline)
        tower = await _there(self.towers, checkpoint_uri)
        started = time.perf_counter()
        pixels = await asyncio.to_thread(sketch_pixels, sketch, tower.encoder.preprocess.size)  # (1, H, W)
        decoded = time.perf_counter()
        vector = await self.encoder(tower, pixels, deadline)
        return Encoded(vector, {"decode": _ms(started, decoded), "encode_sketch": _ms(decoded)})

    async def canary(self, checkpoint_uri: str) -> Encoded:
        """A sketch as any other."""
        return await self.encode(encode_png(render_strokes(CANARY_STROKES)), checkpoint_uri)

    async def ready(self) -> bool:
        """Whether it answers at all."""
        return True


class TextReplica:
    """Words → vectors. Holds the text tower only."""

    def __init__(self, batching: Batching, recent: int = 0) -> None:
        """`recent`: of how many texts, those asked for last, the vectors are kept."""
        self.towers = Generations(_text_tower)
        self.recent, self.found = Recent(recent), RecentMeter()
        self.encoder = BatchedEncoder(batching, BatchMeter("text"))
        self.ahead = Ahead(lambda release: self.towers.get(release.checkpoint))

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Told by Serve what to serve (`serve.release.Wanted`): at the start, and with every change."""
        await self.ahead(user_config)

    async def encode(self, text: str, checkpoint_uri: str, deadline: float = math.inf) -> Encoded:
        """One text; beyond the tower's context length it is cut. Raises LateError."""
        budget.check(deadline)
        started = time.perf_counter()
        vector = self.recent.get((checkpoint_uri, text))
        self.found(vector is not None)
        if vector is None:
            vector = await self.encoder(await _there(self.towers, checkpoint_uri), text, deadline)
            self.recent.put((checkpoint_uri, text), vector)
        return Encoded(vector, {"encode_text": _ms(started)})

    async def canary(self, checkpoint_uri: str) -> Encoded:
        """A text as any other."""
        return await self.encode(CANARY_TEXT, checkpoint_uri)

    async def ready(self) -> bool:
        """Whether it answers at all."""
        return True


class FusionReplica:
    """Vectors → hits. Holds the gallery; Serve runs its plain methods in threads, beside the event loop."""

    def __init__(self, cache: str | None = None) -> None:
        """`cache`: a folder of this machine for what an indexed search reads."""
        self.gates = Generations(partial(checkpoint.load, part="gate"))
        self.galleries = Generations(partial(_opened, Cache(Path(cache)) if cache else None))
        self.ahead = Ahead(self._load)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Told by Serve what to serve (`serve.release.Wanted`): at the start, and with every change."""
        await self.ahead(user_config)

    def search(self, release: Release, sketch: Encoded | None, text: Encoded | None, query: Query) -> Found:
        """The best photos for what there is of a query.

        A photo in place of a sketch (`photo_id`) is not among its own hits. Raises InputError, naming it,
        where the gallery has no such photo.
        """
        gallery, started = self.galleries.get(release), time.perf_counter()
        # The gate knows sketches only, and a photo would be the first of its own hits.
        drawn, gate, more = _row(sketch), self.gates.get(release.checkpoint), 0
        if query.photo_id is not None:
            drawn, gate, more = _like(gallery, query.photo_id), None, 1
        with torch.inference_mode():
            query_BD = fuse(drawn, _row(text), query.sketch_weight, gate)  # (1, D)
        fused = time.perf_counter()
        hits = gallery.search(query_BD.numpy(), query.k + more, query.category, query.where)[0]
        found = [asdict(hit) for hit in hits if hit.photo_id != query.photo_id][: query.k]
        timing = {**(sketch.timing_ms if sketch else {}), **(text.timing_ms if text else {})}
        timing |= {"fuse": _ms(started, fused), "search": _ms(fused)}
        return Found(found, release.digest, gallery.version, timing)

    def thumbnail(self, release: Release, photo_id: str) -> bytes:
        """The encoded thumbnail of a photo, empty where it has none."""
        return self.galleries.get(release).thumbnail(photo_id) or b""

    def resolve(self, user_config: dict[str, Any]) -> Release:
        """As `serve.release.resolve`: the ingress has neither torch nor Lance to do it by."""
        return resolve(user_config)

    def check(self, release: Release, sketch: Encoded, text: Encoded) -> dict[str, Any]:
        """What /v1/info says of a release, once a canary query has been answered by it.

        Raises InputError where model and gallery do not go together.
        """
        self._load(release)
        told = {"model": {"checkpoint": release.digest, **_described(release.checkpoint)}, "gallery": None}
        if release.version is None:
            return told
        found = self.search(release, sketch, text, Query(None, None, 1, 0.5, None))
        gallery: Gallery = self.galleries.get(release)
        if len(found.hits) != min(1, gallery.count) or any(math.isnan(hit["score"]) for hit in found.hits):
            raise InputError(f"{release.gallery}: version {release.version} finds nothing for a canary query")
        about = {
            "version": gallery.version,
            "count": gallery.count,
            "categories": gallery.categories,
            "columns": gallery.columns,
        }
        return {**told, "gallery": about}

    def ready(self) -> bool:
        """Whether it answers at all."""
        return True

    def _load(self, release: Release) -> None:
        self.gates.get(release.checkpoint)
        if release.version is not None:
            self.galleries.get(release)


async def _there(towers: Generations, checkpoint_uri: str) -> Any:
    """Loaded, or after loading it in a thread: requests by another release go on meanwhile."""
    return towers.there(checkpoint_uri) or await asyncio.to_thread(towers.get, checkpoint_uri)


def _sketch_tower(checkpoint_uri: str) -> Tower:
    encoder = checkpoint.load(checkpoint_uri, part="sketch")
    size = encoder.preprocess.size
    return tower(encoder, _stack, np.zeros((1, size, size), np.uint8))


def _text_tower(checkpoint_uri: str) -> Tower:
    encoder = checkpoint.load(checkpoint_uri, part="text")
    return tower(encoder, encoder.tokenize, "")


def _opened(cache: Cache | None, release: Release) -> Gallery:
    return open_gallery(release.gallery, release.digest, release.version, cache)


def _described(checkpoint_uri: str) -> dict[str, Any]:
    recipe = checkpoint.read_recipe(checkpoint_uri)
    model = recipe.model
    sketch = model.sketch or model.photo
    towers = {"photo": model.photo.model, "sketch": sketch.model, "text": model.text.model}
    sizes = {"photo": model.photo.preprocess.size, "sketch": sketch.preprocess.size}
    return {"recipe": recipe.name, "dim": model.dim, "towers": towers, "pixels": sizes}


def _stack(pixels: Any) -> torch.Tensor:
    batch: Pixels = np.stack(pixels)  # (B, 1, size, size)
    return torch.from_numpy(batch)


def _like(gallery: Gallery, photo_id: str) -> torch.Tensor:
    vector = gallery.vector(photo_id)
    if vector is None:
        raise InputError(f"photo_id: {photo_id!r} is not in the gallery")
    return torch.from_numpy(vector.copy())[None]  # (1, D)


def _row(encoded: Encoded | None) -> torch.Tensor | None:
    return None if encoded is None else torch.from_numpy(encoded.vector.copy())[None]  # (1, D)


def _ms(start: float, end: float | None = None) -> float:
    return round(((time.perf_counter() if end is None else end) - start) * 1000, 2)
