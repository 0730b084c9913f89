"""The three deployments behind the ingress: the sketch encoder, the text encoder, and fusion with search.

Each is a plain class; `serve.wiring` makes deployments of them. Each call carries a group of queries
(`serve.deployments.coalescing`), or one query to explain, and names its release. A replica holds two
releases, so that a response comes from one release and a rollout delays no request.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from serve.deadline import Deadline, elapsed_ms
from serve.deployments import search
from serve.deployments.batching import BatchedEncoder, EncoderLoader, LoadedEncoder
from serve.deployments.canary import CANARY_TEXT, canary, canary_sketch
from serve.deployments.gallery_info import describe_gallery, describe_model
from serve.deployments.item_results import map_items
from serve.deployments.large_photo import large_photo
from serve.deployments.sketch_decoder import DecodedSketch, SketchDecoder
from serve.deployments.text_cache import TextCache
from serve.messages import Encoded, EncodeResult, LargePhoto, Query, Release, SearchResult
from serve.metrics import batch_size_observer, gallery_gauges, text_cache_counter
from serve.rollout.model_versions import ModelVersions
from serve.rollout.records import ReleaseRecords
from serve.rollout.release import Preloader, resolve
from serve.settings import Batching
from stbir.embedding.embed import fuse_vectors
from stbir.embedding.explanation import Explanation, Parts, explain, leave_out_words, occlude_cells
from stbir.embedding.match_probability import read_match_curves
from stbir.errors import InputError
from stbir.gallery.gallery import Gallery, open_gallery
from stbir.gallery.local_cache import CacheConfig
from stbir.model import checkpoint

_AUTO = EncoderLoader("auto")


class SketchReplica:
    """Encodes sketches; holds the sketch encoder only."""

    def __init__(self, batching: Batching, records: ReleaseRecords, loader: EncoderLoader = _AUTO) -> None:
        self.encoders = ModelVersions(loader.load_sketch, records.checkpoints_in_force)
        self.batched = BatchedEncoder(batching, batch_size_observer("sketch"))
        self.decoder = SketchDecoder()
        self.preload = Preloader(self.load, records)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load the release of a `serve.rollout.release.ReleaseConfig`. Serve calls it at start too."""
        await self.preload(user_config)

    async def encode(
        self, sketches: Sequence[bytes | None], checkpoint_uri: str, budgets_s: Sequence[float]
    ) -> list[EncodeResult | None]:
        """The vectors of images, or their InputError or DeadlineExceededError; None stays None."""
        deadlines = [Deadline.after(budget_s) for budget_s in budgets_s]
        encoder = await self.encoders.get_async(checkpoint_uri)
        decode = partial(self.decoder, encoder.encoder.preprocess)
        # All are decoded before the first is encoded, so that they form one batch.
        decoded = await map_items(decode, sketches, deadlines)
        return await map_items(partial(self._encode, encoder), decoded, deadlines)

    async def _encode(self, encoder: LoadedEncoder, sketch: DecodedSketch, deadline: Deadline) -> Encoded:
        start = time.perf_counter()
        vector = await self.batched(encoder, sketch.pixels_1HW, deadline)
        timing_ms = {"decode": sketch.decode_ms, "encode_sketch": elapsed_ms(start)}
        return Encoded(vector, timing_ms, deadline.elapsed_s)

    async def encode_parts(self, sketch: bytes, checkpoint_uri: str, budget_s: float) -> Parts:
        """The vectors of an image and of its cells. Raises InputError or DeadlineExceededError."""
        deadline = Deadline.after(budget_s)
        encoder = await self.encoders.get_async(checkpoint_uri)
        decoded = await self.decoder(encoder.encoder.preprocess, sketch, deadline)
        cells, variants = occlude_cells(decoded.pixels_1HW)
        vectors = await asyncio.gather(*(self.batched(encoder, each, deadline) for each in variants))
        return Parts(cells, np.stack(vectors))

    async def canary(self, checkpoint_uri: str) -> Encoded:
        """The vector of a canary sketch."""
        return await canary(self.encode, canary_sketch(), checkpoint_uri, self.encoders)

    def load(self, release: Release) -> None:
        """Load the encoder of a release before requests use it."""
        self.encoders.get(release.checkpoint)


class TextReplica:
    """Encodes texts; holds the text encoder only."""

    def __init__(
        self,
        batching: Batching,
        records: ReleaseRecords,
        cache_size: int = 0,
        loader: EncoderLoader = _AUTO,
    ) -> None:
        """`cache_size`: number of texts whose vectors are cached."""
        self.encoders = ModelVersions(loader.load_text, records.checkpoints_in_force)
        self.cache, self.count_lookup = TextCache(cache_size), text_cache_counter()
        self.batched = BatchedEncoder(batching, batch_size_observer("text"))
        self.preload = Preloader(self.load, records)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load the release of a `serve.rollout.release.ReleaseConfig`. Serve calls it at start too."""
        await self.preload(user_config)

    async def encode(
        self, texts: Sequence[str | None], checkpoint_uri: str, budgets_s: Sequence[float], gallery: str = ""
    ) -> list[EncodeResult | None]:
        """The vectors of texts, or DeadlineExceededError. None stays None.

        The tokenizer truncates a text to the context length. `gallery`: whose texts are cached together.
        """
        deadlines = [Deadline.after(budget_s) for budget_s in budgets_s]
        return await map_items(partial(self._encode, checkpoint_uri, gallery), texts, deadlines)

    async def _encode(self, checkpoint_uri: str, gallery: str, text: str, deadline: Deadline) -> Encoded:
        deadline.check()
        start, key = time.perf_counter(), (checkpoint_uri, gallery, text)
        vector = self.cache.get(key)
        self.count_lookup(vector is not None)
        if vector is None:
            vector = await self.batched(await self.encoders.get_async(checkpoint_uri), text, deadline)
            self.cache[key] = vector
        return Encoded(vector, {"encode_text": elapsed_ms(start)}, deadline.elapsed_s)

    async def encode_parts(self, text: str, checkpoint_uri: str, budget_s: float, gallery: str = "") -> Parts:
        """The vectors of a text and of its words. Raises InputError or DeadlineExceededError."""
        encode, deadline = partial(self._encode, checkpoint_uri, gallery), Deadline.after(budget_s)
        words, texts = leave_out_words(text)
        encoded = await asyncio.gather(*(encode(each, deadline) for each in texts))
        return Parts(words, np.stack([each.vector for each in encoded]))

    async def canary(self, checkpoint_uri: str) -> Encoded:
        """The vector of a canary text."""
        return await canary(self.encode, CANARY_TEXT, checkpoint_uri, self.encoders)

    def load(self, release: Release) -> None:
        """Load the encoder of a release before requests use it."""
        self.encoders.get(release.checkpoint)


class FusionReplica:
    """Fuses vectors and searches the gallery. Serve runs its plain methods in threads, off the event loop."""

    def __init__(self, records: ReleaseRecords, cache: str | None = None) -> None:
        """`cache`: a local folder for the data that an indexed search reads."""
        self.gates = ModelVersions(partial(checkpoint.load, part="gate"), records.checkpoints_in_force)
        self.match_curves = ModelVersions(read_match_curves, records.checkpoints_in_force)
        cache_config = CacheConfig(Path(cache)) if cache else None
        self.galleries = ModelVersions(partial(_open_gallery, cache_config), records.releases_in_force)
        # Of their own, so that no search waits for a thumbnail, and no thumbnail for an original.
        self._thumbnail_threads = ThreadPoolExecutor(2, thread_name_prefix="thumbnail")
        self._photo_threads = ThreadPoolExecutor(2, thread_name_prefix="photo")
        self.preload, self.report_gallery = Preloader(self.load, records), gallery_gauges(records.gallery)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load the release of a `serve.rollout.release.ReleaseConfig`. Serve calls it at start too."""
        await self.preload(user_config)

    async def search(
        self,
        release: Release,
        sketches: Sequence[EncodeResult | None] | None,
        texts: Sequence[EncodeResult | None] | None,
        queries: Sequence[Query],
    ) -> list[SearchResult | Exception]:
        """The hits of each query, or its error: that of an encoder, or an InputError that names a field.

        `sketches` and `texts` are those of each query and of its negatives, None if there are none. The photo
        of a `photo_id` is not a hit.
        """
        no_vectors = [None] * sum(1 + len(query.without) for query in queries)
        sketches, texts = sketches or no_vectors, texts or no_vectors
        pairs = zip(queries, search.pairs_of(queries, sketches, texts), strict=True)
        # Counted from here and not in the thread, for which the group may have to wait.
        deadlines = [search.query_deadline(query, *chain(*each)) for query, each in pairs]
        return await asyncio.to_thread(self._search, release, sketches, texts, queries, deadlines)

    def _search(self, release: Release, *group: Any) -> list[SearchResult | Exception]:
        gate, curves = self.gates.get(release.checkpoint), self.match_curves.get(release.checkpoint)
        loaded = search.LoadedRelease(release, self.galleries.get(release), gate, curves)
        return search.search(loaded, *group)

    def explain(
        self, release: Release, photo_id: str, sketch: Parts | None, text: Parts | None, sketch_weight: float
    ) -> Explanation:
        """What each part of a query contributed to the score of a photo. Raises InputError if unknown."""
        photo_D = self.galleries.get(release).vector(photo_id)
        if photo_D is None:
            raise InputError(f"hit: {photo_id!r} is not in the gallery")
        gate = self.gates.get(release.checkpoint)
        return explain(photo_D, sketch, text, partial(fuse_vectors, sketch_weight=sketch_weight, gate=gate))

    async def thumbnail(self, release: Release, photo_id: str) -> bytes:
        """The encoded thumbnail of a photo; empty if it has none."""

        def fetch() -> bytes:
            return self.galleries.get(release).thumbnail(photo_id) or b""

        return await asyncio.get_running_loop().run_in_executor(self._thumbnail_threads, fetch)

    async def large_photo(self, release: Release, photo_id: str) -> LargePhoto:
        """The original of a photo, reduced for a screen, and its page on the web."""

        def read() -> LargePhoto:
            return large_photo(self.galleries.get(release), photo_id)

        return await asyncio.get_running_loop().run_in_executor(self._photo_threads, read)

    def resolve(self, user_config: dict[str, Any]) -> Release:
        """Same as `serve.rollout.release.resolve`, for the ingress, which has neither torch nor Lance."""
        return resolve(user_config)

    def check(self, release: Release, sketch: Encoded, text: Encoded) -> dict[str, Any]:
        """The description of a release for /v1/info, after a canary query.

        Raises InputError if the model and the gallery do not match.
        """
        self.load(release)
        backends = {"sketch": sketch.backend, "text": text.backend}
        model = {"checkpoint": release.digest, **describe_model(release.checkpoint), "backends": backends}
        if release.version is None:
            return {"model": model, "gallery": None}
        query = Query(None, None, 1, 0.5, None)
        [result] = self._search(release, [sketch], [text], [query], [Deadline.after(math.inf)])
        if isinstance(result, Exception):
            raise result
        gallery: Gallery = self.galleries.get(release)
        if len(result.hits) != min(1, gallery.count) or any(math.isnan(hit["score"]) for hit in result.hits):
            raise InputError(f"{release.gallery}: version {release.version} has no hit for a canary query")
        return {"model": model, "gallery": describe_gallery(release, gallery, sketch.vector)}

    def load(self, release: Release) -> None:
        """Load a release before requests use it."""
        self.gates.get(release.checkpoint)
        self.match_curves.get(release.checkpoint)
        if release.version is not None:
            self.report_gallery(self.galleries.get(release))


def _open_gallery(cache: CacheConfig | None, release: Release) -> Gallery:
    return open_gallery(release.gallery, release.digest, release.version, cache)
