"""The three deployments behind the ingress: one tower each, and the one that fuses and searches.

Each is a plain class; `serve.app` makes deployments of them.
Searches come in groups (`serve.deployments.coalescing`).
Every call says by which release it is to be answered, and they hold two: so an answer is of one release
throughout, and nobody waits for a new one.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from serve.deadline import check_deadline, elapsed_ms
from serve.deployments import search
from serve.deployments.batching import BatchedEncoder, Tower, tower
from serve.deployments.item_results import outcomes
from serve.deployments.search import Opened
from serve.deployments.text_cache import Recent
from serve.messages import Encoded, Found, Outcome, Query, Release
from serve.metrics import BatchMeter, RecentMeter
from serve.rollout.model_versions import Generations
from serve.rollout.release import Ahead, resolve
from serve.settings import Batching
from stbir.errors import InputError
from stbir.gallery.gallery import Gallery, open_gallery
from stbir.gallery.local_cache import Cache
from stbir.images import Pixels, encode_png, render_strokes, sketch_pixels
from stbir.model import checkpoint

CANARY_STROKES = [[(0.2, 0.2), (0.8, 0.3), (0.5, 0.8), (0.2, 0.2)]]
CANARY_TEXT = "a canary"


@dataclass(frozen=True)
class Decoded:
    """A sketch as its tower wants it, (1, H, W) uint8."""

    pixels_1HW: Pixels
    took_ms: float


class SketchReplica:
    """Sketches → vectors. Holds the sketch tower only."""

    def __init__(self, batching: Batching) -> None:
        self.towers = Generations(_sketch_tower)
        self.encoder = BatchedEncoder(batching, BatchMeter("sketch"))
        self.ahead = Ahead(lambda release: self.towers.get(release.checkpoint))

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Ray Serve passes what to serve (`serve.rollout.release.Wanted`), at start and on change."""
        await self.ahead(user_config)

    async def encode(
        self, sketches: Sequence[bytes | None], checkpoint_uri: str, deadlines: Sequence[float]
    ) -> list[Outcome | None]:
        """Encoded pictures, each with its deadline; None stays None. What is wrong with one (InputError,
        naming `sketch`, or LateError) stands in its place."""
        tower = await _there(self.towers, checkpoint_uri)
        decode = partial(_decoded, size=tower.encoder.preprocess.size)
        # All are decoded before any is encoded, so that they make one batch.
        decoded = await outcomes(decode, sketches, deadlines)
        return await outcomes(partial(self._encode, tower), decoded, deadlines)

    async def _encode(self, tower: Tower, sketch: Decoded, deadline: float) -> Encoded:
        started = time.perf_counter()
        vector = await self.encoder(tower, sketch.pixels_1HW, deadline)
        return Encoded(vector, {"decode": sketch.took_ms, "encode_sketch": elapsed_ms(started)})

    async def canary(self, checkpoint_uri: str) -> Encoded:
        """A sketch as any other."""
        return await canary(self.encode, encode_png(render_strokes(CANARY_STROKES)), checkpoint_uri)

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
        """Ray Serve passes what to serve (`serve.rollout.release.Wanted`), at start and on change."""
        await self.ahead(user_config)

    async def encode(
        self, texts: Sequence[str | None], checkpoint_uri: str, deadlines: Sequence[float]
    ) -> list[Outcome | None]:
        """Texts, each with its deadline; None stays None, what is late has its LateError in its place. Beyond
        the tower's context length a text is cut."""
        return await outcomes(partial(self._encode, checkpoint_uri), texts, deadlines)

    async def _encode(self, checkpoint_uri: str, text: str, deadline: float) -> Encoded:
        check_deadline(deadline)
        started = time.perf_counter()
        vector = self.recent.get((checkpoint_uri, text))
        self.found(vector is not None)
        if vector is None:
            vector = await self.encoder(await _there(self.towers, checkpoint_uri), text, deadline)
            self.recent.put((checkpoint_uri, text), vector)
        return Encoded(vector, {"encode_text": elapsed_ms(started)})

    async def canary(self, checkpoint_uri: str) -> Encoded:
        """A text as any other."""
        return await canary(self.encode, CANARY_TEXT, checkpoint_uri)

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
        self._answering: Release | None = None

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Ray Serve passes what to serve (`serve.rollout.release.Wanted`), at start and on change."""
        await self.ahead(user_config)

    def answering(self) -> Release | None:
        """By what it answered last, a canary query too; for an ingress that has not seen that."""
        return self._answering

    def search(
        self,
        release: Release,
        sketches: Sequence[Outcome | None] | None,
        texts: Sequence[Outcome | None] | None,
        queries: Sequence[Query],
    ) -> list[Found | Exception]:
        """The best photos for what there is of each query; None for a modality that none of them has.

        A photo in place of a sketch (`photo_id`) is not among its own hits. What is wrong with a query stands
        in its place: what its towers said, or an InputError that names a field.
        """
        nothing = [None] * len(queries)
        opened = Opened(release, self.galleries.get(release), self.gates.get(release.checkpoint))
        answers = search.search(opened, sketches or nothing, texts or nothing, queries)
        self._answering = release
        return answers

    def thumbnail(self, release: Release, photo_id: str) -> bytes:
        """The encoded thumbnail of a photo, empty where it has none."""
        return self.galleries.get(release).thumbnail(photo_id) or b""

    def resolve(self, user_config: dict[str, Any]) -> Release:
        """As `serve.rollout.release.resolve`: the ingress has neither torch nor Lance to do it by."""
        return resolve(user_config)

    def check(self, release: Release, sketch: Encoded, text: Encoded) -> dict[str, Any]:
        """What /v1/info says of a release, once a canary query has been answered by it.

        Raises InputError where model and gallery do not go together.
        """
        self._load(release)
        told = {"model": {"checkpoint": release.digest, **_described(release.checkpoint)}, "gallery": None}
        if release.version is None:
            return told
        [found] = self.search(release, [sketch], [text], [Query(None, None, 1, 0.5, None)])
        if isinstance(found, Exception):
            raise found
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


async def _decoded(sketch: bytes, deadline: float, size: int) -> Decoded:
    check_deadline(deadline)
    started = time.perf_counter()
    pixels_1HW = await asyncio.to_thread(sketch_pixels, sketch, size)
    return Decoded(pixels_1HW, elapsed_ms(started))


async def canary(encode: Callable[..., Awaitable[list[Outcome | None]]], item: Any, uri: str) -> Encoded:
    """An item encoded as any other. Raises what is wrong with it."""
    [encoded] = await encode([item], uri, [math.inf])
    if not isinstance(encoded, Encoded):
        raise encoded or InputError(f"{uri}: nothing came of the canary")
    return encoded


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
    return {"recipe": recipe.name, "dim": model.width, "towers": towers, "pixels": sizes}


def _stack(pixels: Any) -> torch.Tensor:
    batch: Pixels = np.stack(pixels)  # (B, 1, size, size)
    return torch.from_numpy(batch)
