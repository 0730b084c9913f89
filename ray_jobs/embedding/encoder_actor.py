"""The encoder's half of embed_gallery: an actor with the photo tower, which finds its batch size itself."""

import os
import time
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch

from stbir.embedding.embed import encode
from stbir.gallery.arrays import Features
from stbir.images import Pixels
from stbir.model import checkpoint
from stbir.model.encoders import ImageEncoder

_FIRST, _LARGEST = 8, 256
# The first batch of a size is slow on a GPU, and any may meet other work on a CPU: the faster one counts. The
# search ends at four times the best size.
_TRIALS, _BEYOND = 2, 4
# A larger batch that is not faster by so much is not worth its memory.
_GAIN = 1.03


@dataclass(frozen=True)
class Encoded:
    """Vectors (B, D) and the seconds that the encoder waited for their photos and worked on them."""

    vectors: Features
    waited_s: float
    worked_s: float
    batch: int


class BatchSize:
    """Doubles while the rate of photos grows; then it is the best. `fixed`: stays at that from the start."""

    def __init__(self, fixed: int | None = None) -> None:
        self.now = fixed or _FIRST
        self._found = fixed is not None
        self._rates: dict[int, list[float]] = defaultdict(list)

    def took(self, photos: int, seconds: float) -> None:
        """A batch is done. Only those of the present size tell."""
        if self._found or photos != self.now:
            return
        self._rates[photos].append(photos / seconds)
        if len(self._rates[photos]) < _TRIALS:
            return
        best = self._best()
        if self.now >= min(_LARGEST, _BEYOND * best):
            self.now, self._found = best, True
        else:
            self.now *= 2

    def _best(self) -> int:
        """The smallest size that is about as fast as any."""
        rates = {size: max(rates) for size, rates in self._rates.items()}
        return min(size for size, rate in rates.items() if rate * _GAIN >= max(rates.values()))

    def did_not_fit(self) -> bool:
        """The memory of the device is too small: half of it from now on; False where that is not possible."""
        self.now, self._found = self.now // 2, True
        return self.now >= 1


class PhotoTower:
    """An actor's state: the photo tower alone, on a GPU where there is one, loaded with the first photos."""

    def __init__(self, checkpoint_uri: str, workers: int, batch: int | None) -> None:
        self._uri, self._workers = checkpoint_uri, workers
        self._size = BatchSize(batch)
        self._encoder: ImageEncoder | None = None
        self._free_since = 0.0

    def encode(self, pixels_B3SS: Pixels) -> Encoded:
        """Decoded photos → unit vectors."""
        if not len(pixels_B3SS):
            return Encoded(np.empty((0, 0), np.float32), 0, 0, self._size.now)
        encoder = self._loaded()
        began = time.perf_counter()
        waited = began - self._free_since
        parts: list[Features] = []
        done = 0
        while done < len(pixels_B3SS):
            parts.append(self._batch(encoder, pixels_B3SS[done : done + self._size.now]))
            done += len(parts[-1])
        self._free_since = time.perf_counter()
        return Encoded(np.concatenate(parts), waited, self._free_since - began, self._size.now)

    def _batch(self, encoder: ImageEncoder, pixels_B3SS: Pixels) -> Features:
        """The vectors of one batch, or of as many of its first photos as fit into memory."""
        while True:
            began = time.perf_counter()
            try:
                # A copy: what lies in the object store is read-only, which torch warns of.
                vectors_BD = encode(encoder, torch.tensor(pixels_B3SS))
            except torch.cuda.OutOfMemoryError:
                if not self._size.did_not_fit():
                    raise
                pixels_B3SS = pixels_B3SS[: self._size.now]
                continue
            self._size.took(len(vectors_BD), time.perf_counter() - began)
            return vectors_BD

    def _loaded(self) -> ImageEncoder:
        if self._encoder is None:
            self._encoder = checkpoint.load(self._uri, part="photo")
            if torch.cuda.is_available():
                self._encoder.cuda()
            else:  # Ray gives an actor of less than one CPU a single thread
                torch.set_num_threads(max(1, (os.cpu_count() or 1) // self._workers))
            self._free_since = time.perf_counter()
        return self._encoder
