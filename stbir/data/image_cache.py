"""The decoded pictures that a process made last: what is seen for many epochs is decoded once."""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable

from PIL import Image


class Squares:
    """`make(data, size)`, remembered for the pictures asked for last, up to `budget` bytes of pixels.

    `in_all`: what the processes of the machine, one a CPU, may keep together. What the encoded pictures
    weigh does not count: they are known by their digest.
    """

    def __init__(
        self, make: Callable[[bytes, int], Image.Image], budget: int, in_all: int | None = None
    ) -> None:
        share = budget if in_all is None else in_all // (os.cpu_count() or 1)
        self._make, self._budget = make, min(budget, share)
        self._kept: OrderedDict[tuple[bytes, int], Image.Image] = OrderedDict()
        self.held = 0  # bytes

    def __call__(self, data: bytes, size: int) -> Image.Image:
        """The square, not to be changed. Raises what `make` raises; that is not remembered."""
        key = (hashlib.blake2b(data, digest_size=16).digest(), size)
        if key not in self._kept:
            self._kept[key] = self._make(data, size)
            self.held += _weight(self._kept[key])
        self._kept.move_to_end(key)
        square = self._kept[key]
        while self.held > self._budget:
            self.held -= _weight(self._kept.popitem(last=False)[1])
        return square


def _weight(square: Image.Image) -> int:
    """Pillow keeps a grey pixel in one byte, a coloured one in four."""
    return square.width * square.height * (1 if square.mode == "L" else 4)
