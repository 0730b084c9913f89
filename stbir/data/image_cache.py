"""An LRU cache of decoded images, so that an image is decoded once in many epochs."""

import hashlib
import os
import threading
from collections.abc import Callable

from cachetools import LRUCache, cached
from PIL import Image

from stbir.images import Resize

MACHINE_BYTES = 2**31


class ImageCache:
    """`decode(data, size, resize)` with an LRU cache of at most `max_bytes` of pixels.

    `MACHINE_BYTES` limits the processes of a machine together, one per CPU. Keys are digests, so the
    encoded bytes take no memory. An image larger than the cache is not stored.
    """

    def __init__(self, decode: Callable[[bytes, int, Resize], Image.Image], max_bytes: int) -> None:
        max_bytes = min(max_bytes, MACHINE_BYTES // (os.cpu_count() or 1))
        self._cache: LRUCache[tuple[bytes, int, Resize], Image.Image] = LRUCache(
            max_bytes, getsizeof=_pixel_bytes
        )
        self._decode = cached(self._cache, key=_digest, lock=threading.Lock())(decode)

    def __call__(self, data: bytes, size: int, resize: Resize = "pad") -> Image.Image:
        """The decoded image; do not modify it. Raises what `decode` raises."""
        return self._decode(data, size, resize)

    @property
    def used_bytes(self) -> int:
        """Bytes of pixels in the cache."""
        return int(self._cache.currsize)


def _digest(data: bytes, size: int, resize: Resize) -> tuple[bytes, int, Resize]:
    return hashlib.blake2b(data, digest_size=16).digest(), size, resize


def _pixel_bytes(image: Image.Image) -> int:
    """Pillow stores a grey pixel in one byte and a colour pixel in four."""
    return image.width * image.height * (1 if image.mode == "L" else 4)
