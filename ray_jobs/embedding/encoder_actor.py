"""The encode stage of an embedding job: an actor with the photo encoder, which tunes its batch size."""

import os
import time
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch

from stbir.config.choices import Backend
from stbir.embedding.embed import encode
from stbir.gallery.arrays import Features
from stbir.images import Pixels
from stbir.model import checkpoint
from stbir.model.backend import use_backend
from stbir.model.encoders import ImageEncoder
from stbir.model.graph_cache import DEFAULT_FOLDER

_MIN_BATCH, _MAX_BATCH = 8, 256
# A GPU's warm-up and other work on a CPU slow a batch down, so the faster of two trials counts.
_NUM_TRIALS = 2
_SEARCH_FACTOR = 4  # tuning ends at this multiple of the best size
_MIN_SPEEDUP = 1.03  # a larger batch must be faster by this factor to justify its memory


@dataclass(frozen=True)
class EncodedPart:
    """Vectors (B, D), the seconds that the encoder waited for their photos, and those it took to encode."""

    vectors: Features
    wait_s: float
    encode_s: float
    batch_size: int
    backend: str = ""  # empty before the first photo

    @classmethod
    def empty(cls, batch_size: int = 0) -> "EncodedPart":
        """The result for a part without photos to encode."""
        return cls(np.empty((0, 0), np.float32), 0, 0, batch_size)


class BatchSizeTuner:
    """Doubles the batch size while throughput grows, then keeps the best. `fixed` disables tuning."""

    def __init__(self, fixed: int | None = None) -> None:
        self.size = fixed or _MIN_BATCH
        self._is_tuned = fixed is not None
        self._rates: dict[int, list[float]] = defaultdict(list)

    def record(self, num_photos: int, seconds: float) -> None:
        """Record the time of a batch. Partial batches are ignored."""
        if self._is_tuned or num_photos != self.size:
            return
        self._rates[num_photos].append(num_photos / seconds)
        if len(self._rates[num_photos]) < _NUM_TRIALS:
            return
        best = self._best_size()
        if self.size >= min(_MAX_BATCH, _SEARCH_FACTOR * best):
            self.size, self._is_tuned = best, True
        else:
            self.size *= 2

    def halve(self) -> bool:
        """Halve the size for good, because the device ran out of memory. False if it was 1 already."""
        self.size, self._is_tuned = self.size // 2, True
        return self.size >= 1

    def _best_size(self) -> int:
        """The smallest size with about the highest throughput."""
        rates = {size: max(rates) for size, rates in self._rates.items()}
        return min(size for size, rate in rates.items() if rate * _MIN_SPEEDUP >= max(rates.values()))


class EncoderActor:
    """Holds the photo encoder, on a GPU if the actor has one. Loads it with the first photos."""

    def __init__(
        self, checkpoint_uri: str, num_workers: int, batch_size: int | None, backend: Backend = "auto"
    ) -> None:
        self._uri, self._num_workers, self._backend = checkpoint_uri, num_workers, backend
        self._backend_in_use = ""
        self._tuner = BatchSizeTuner(batch_size)
        self._encoder: ImageEncoder | None = None
        self._idle_since = 0.0

    def encode(self, pixels_B3SS: Pixels) -> EncodedPart:
        """Encode decoded photos to unit vectors."""
        if not len(pixels_B3SS):
            return EncodedPart.empty(self._tuner.size)
        encoder = self._load_encoder()
        start = time.perf_counter()
        wait_s = start - self._idle_since
        parts: list[Features] = []
        done = 0
        while done < len(pixels_B3SS):
            parts.append(self._encode_batch(encoder, pixels_B3SS[done : done + self._tuner.size]))
            done += len(parts[-1])
        self._idle_since = time.perf_counter()
        encode_s = self._idle_since - start
        return EncodedPart(np.concatenate(parts), wait_s, encode_s, self._tuner.size, self._backend_in_use)

    def _encode_batch(self, encoder: ImageEncoder, pixels_B3SS: Pixels) -> Features:
        """The vectors of a batch, or of its head if the full batch does not fit into device memory."""
        while True:
            start = time.perf_counter()
            try:
                # torch.tensor copies: arrays from the object store are read-only, which torch warns about.
                vectors_BD = encode(encoder, torch.tensor(pixels_B3SS))
            except torch.cuda.OutOfMemoryError:
                if not self._tuner.halve():
                    raise
                pixels_B3SS = pixels_B3SS[: self._tuner.size]
                continue
            self._tuner.record(len(vectors_BD), time.perf_counter() - start)
            return vectors_BD

    def _load_encoder(self) -> ImageEncoder:
        if self._encoder is None:
            self._encoder = checkpoint.load(self._uri, part="photo")
            if torch.cuda.is_available():
                self._encoder.cuda()
            else:  # Ray limits an actor with less than one CPU to a single thread
                torch.set_num_threads(max(1, (os.cpu_count() or 1) // self._num_workers))
            in_use = use_backend(self._encoder, "photo", self._backend, DEFAULT_FOLDER)
            self._backend_in_use = str(in_use)
            self._idle_since = time.perf_counter()
        return self._encoder
