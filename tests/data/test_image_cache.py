import os

import pytest
from PIL import Image

from stbir.data.image_cache import Squares


def counting(calls: list[bytes]) -> Squares:
    def make(data: bytes, size: int) -> Image.Image:
        calls.append(data)
        if data == b"bad":
            raise ValueError(data)
        return Image.new("L", (size, size), data[0])

    return Squares(make, budget=250)


def test_what_was_asked_for_last_is_not_made_again() -> None:
    calls: list[bytes] = []
    squares = counting(calls)
    for data in (b"a", b"b", b"a", b"c", b"a", b"b"):  # 100 bytes each: two are kept
        assert squares(bytes(bytearray(data)), 10).getpixel((0, 0)) == data[0]
        assert squares.held <= 200
    assert calls == [b"a", b"b", b"c", b"b"]
    assert squares(b"a", 5).size == (5, 5)


def test_what_is_larger_than_all_that_is_kept_is_made_and_not_kept() -> None:
    calls: list[bytes] = []
    squares = counting(calls)
    assert squares(b"a", 16).size == squares(b"a", 16).size == (16, 16)
    assert (calls, squares.held) == ([b"a", b"a"], 0)


def test_the_processes_of_a_machine_share_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    squares = Squares(lambda data, size: Image.new("L", (size, size)), budget=250, in_all=600)
    squares(b"a", 10)
    squares(b"b", 10)
    assert squares.held == 100


def test_a_bad_picture_is_bad_each_time() -> None:
    squares = counting([])
    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            squares(b"bad", 10)
    assert squares.held == 0
