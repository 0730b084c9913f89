"""The tables and terminal images of the shell command."""

import base64
import io
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stbir_client.errors import InputError
from stbir_client.table import SEPARATOR, align, display_width
from stbir_client.terminal_images import render_iterm, render_kitty, select_renderer

KITTY = re.compile(r"\x1b_G(?P<keys>[^;]*);(?P<data>[^\x1b]*)\x1b\\")
ITERM = re.compile(r"\x1b\]1337;File=(?P<keys>[^:]*):(?P<data>[^\x07]*)\x07")
cells = st.text(max_size=9)


def encode(image_format: str, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((size, size), 60).save(buffer, image_format)
    return buffer.getvalue()


@given(st.lists(st.tuples(cells, cells, st.just("|")), min_size=1))
def test_columns_are_aligned(rows: list[tuple[str, str, str]]) -> None:
    lines = align(rows, right=(0,))
    assert len(lines) == len(rows)
    assert len({display_width(line) for line in lines}) == 1  # all rows end with the same cell
    assert all(line.isprintable() and line.endswith(f"{SEPARATOR}|") for line in lines)


def test_right_alignment_and_wide_characters() -> None:
    assert align([("9", "椅子", "a"), ("10", "box", "b")], right=(0,)) == [" 9  椅子  a", "10  box   b"]


@pytest.mark.parametrize("size", [8, 200])
def test_kitty_image_is_sent_in_chunks(size: int) -> None:
    data = encode("PNG", size)
    chunks = [match.groupdict() for match in KITTY.finditer(render_kitty(data))]
    assert base64.b64decode("".join(chunk["data"] for chunk in chunks)) == data
    assert all(len(chunk["data"]) <= 4096 for chunk in chunks)
    assert [chunk["keys"][-1] for chunk in chunks] == ["1"] * (len(chunks) - 1) + ["0"]
    assert {"a=T", "f=100", "q=2"} <= set(chunks[0]["keys"].split(","))
    assert (len(chunks) > 1) == (size == 200)


def test_jpeg_is_converted_for_kitty() -> None:
    (chunk,) = KITTY.finditer(render_kitty(encode("JPEG")))
    with Image.open(io.BytesIO(base64.b64decode(chunk["data"]))) as image:
        assert (image.format, image.size) == ("PNG", (8, 8))
    with pytest.raises(InputError, match="a thumbnail cannot be decoded"):
        render_kitty(b"no image")


def test_kitty_without_pillow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg, png = encode("JPEG"), encode("PNG")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"pip install 'stbir-client\[thumbnails\]'"):
        render_kitty(jpeg)
    assert KITTY.match(render_kitty(png))


def test_iterm_image_is_unchanged() -> None:
    data = encode("JPEG")
    match = ITERM.fullmatch(render_iterm(data))
    assert match is not None
    assert base64.b64decode(match["data"]) == data
    assert f"size={len(data)}" in match["keys"].split(";")


@pytest.mark.parametrize(
    ("environment", "renderer"),
    [
        ({"TERM": "xterm-kitty"}, render_kitty),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, render_kitty),
        ({"TERM": "xterm-ghostty"}, render_kitty),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, render_iterm),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, render_iterm),  # through ssh
        ({"TERM_PROGRAM": "WezTerm"}, render_iterm),
        ({"TERM": "xterm-256color"}, None),
        ({}, None),
        ({"TERM": "dumb", "TERM_PROGRAM": "iTerm.app"}, None),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
    ],
)
def test_terminal_is_detected_from_the_environment(environment: dict[str, str], renderer: object) -> None:
    assert select_renderer(environment) is renderer
