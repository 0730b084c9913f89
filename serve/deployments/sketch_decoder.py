"""Decoding of the sketches of searches, off the event loop and in bounded memory."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from serve.deadline import Deadline, elapsed_ms
from stbir.config import Preprocess
from stbir.images import Pixels, decode_query_sketch

# Memory for decoding is bounded by this x limits.sketch_pixels, however many sketches a group has.
DECODE_THREADS = 4


@dataclass(frozen=True)
class DecodedSketch:
    """A sketch as the encoder's input, (1, H, W) uint8, and the time of its decoding."""

    pixels_1HW: Pixels
    decode_ms: float


class SketchDecoder:
    """Decodes sketches in DECODE_THREADS threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode")

    async def __call__(self, to: Preprocess, sketch: bytes, deadline: Deadline) -> DecodedSketch:
        """Decode an image. Raises InputError, or DeadlineExceededError if its decoding starts too late."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _decode, to, sketch, deadline)


def _decode(to: Preprocess, sketch: bytes, deadline: Deadline) -> DecodedSketch:
    deadline.check()  # in the thread: the item may have waited for one
    start = time.perf_counter()
    return DecodedSketch(decode_query_sketch(sketch, to.size, to.resize), elapsed_ms(start))
