import os

import pytest
from PIL import Image

from stbir.data.image_cache import ImageCache
from stbir.images import Resize


def counting_cache(calls: list[bytes]) -> ImageCache:
    """A cache of 250 bytes that records each decoded image."""

    def decode(data: bytes, size: int, resize: Resize) -> Image.Image:
        calls.append(data)
        if data == b"bad":
            raise ValueError(data)
        return Image.new("L", (size, size), data[0])

    return ImageCache(decode, max_bytes=250)


def test_images_are_evicted_in_lru_order() -> None:
    calls: list[bytes] = []
    cache = counting_cache(calls)
    for data in (b"a", b"b", b"a", b"c", b"a", b"b"):  # 100 bytes each, so two fit
        assert cache(bytes(bytearray(data)), 10).getpixel((0, 0)) == data[0]
        assert cache.used_bytes <= 200
    assert calls == [b"a", b"b", b"c", b"b"]
    assert cache(b"a", 5).size == (5, 5)
    cache(b"a", 5, "stretch")
    assert calls == [b"a", b"b", b"c", b"b", b"a", b"a"]


def test_an_image_larger_than_the_cache_is_returned_but_not_stored() -> None:
    calls: list[bytes] = []
    cache = counting_cache(calls)
    assert cache(b"a", 16).size == cache(b"a", 16).size == (16, 16)
    assert (calls, cache.used_bytes) == ([b"a", b"a"], 0)


def test_processes_of_a_machine_share_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2**24)  # 128 bytes for each process
    cache = counting_cache([])
    cache(b"a", 10)
    cache(b"b", 10)
    assert cache.used_bytes == 100


def test_errors_are_not_cached() -> None:
    cache = counting_cache([])
    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            cache(b"bad", 10)
    assert cache.used_bytes == 0
