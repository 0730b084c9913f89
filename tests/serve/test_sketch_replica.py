"""The sketch replica: memory for decoding is bounded, and one sketch's error is its own."""

import asyncio
import math
import threading
import time
from typing import Any

import pytest
from PIL import Image

from serve.deployments import sketch_decoder
from serve.deployments.replicas import SketchReplica
from serve.deployments.sketch_decoder import DECODE_THREADS
from serve.messages import Encoded
from serve.rollout.records import ReleaseRecords
from serve.settings import read_settings
from stbir.errors import ImageTooLargeError, InputError, NoStrokeError
from stbir.images import Pixels, Resize, decode_query_sketch, encode_png
from tests.data.image_files import drawing, png
from tests.serve.local import MemoryStore

GROUP = 16


@pytest.fixture(scope="module")
def replica() -> SketchReplica:
    return SketchReplica(read_settings().sketch.batching, ReleaseRecords(MemoryStore()))


def encode(replica: SketchReplica, checkpoint_uri: str, sketches: list[bytes | None]) -> list[Any]:
    return asyncio.run(replica.encode(sketches, checkpoint_uri, [math.inf] * len(sketches)))


def test_a_group_is_decoded_a_few_sketches_at_a_time(
    replica: SketchReplica, checkpoint_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, active, most = threading.Lock(), 0, 0

    def decode(data: bytes, size: int, resize: Resize) -> Pixels:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        time.sleep(0.02)
        with lock:
            active -= 1
        return decode_query_sketch(data, size, resize)

    monkeypatch.setattr(sketch_decoder, "decode_query_sketch", decode)
    results = encode(replica, checkpoint_uri, [encode_png(drawing())] * GROUP)
    assert all(isinstance(result, Encoded) for result in results)
    assert 1 < most <= DECODE_THREADS


def test_the_error_of_one_sketch_is_its_own(
    replica: SketchReplica, checkpoint_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid, huge = encode_png(drawing()), encode_png(drawing(side=100))
    load = Image.Image.convert

    def convert(image: Image.Image, *args: Any) -> Image.Image:
        if image.size == (100, 100):
            raise MemoryError
        return load(image, *args)

    monkeypatch.setattr(Image.Image, "convert", convert)
    results = encode(replica, checkpoint_uri, [valid, huge, None, b"text", png(255), valid])
    types = [Encoded, ImageTooLargeError, type(None), InputError, NoStrokeError, Encoded]
    assert [type(result) for result in results] == types
