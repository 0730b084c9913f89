"""The table and the pictures of the shell command."""

import base64
import io
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stbir_client.errors import InputError
from stbir_client.picture import drawer, iterm, kitty
from stbir_client.table import GAP, aligned, width

KITTY = re.compile(r"\x1b_G(?P<keys>[^;]*);(?P<data>[^\x1b]*)\x1b\\")
ITERM = re.compile(r"\x1b\]1337;File=(?P<keys>[^:]*):(?P<data>[^\x07]*)\x07")
cell = st.text(max_size=9)


def encoded(form: str, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((size, size), 60).save(buffer, form)
    return buffer.getvalue()


@given(st.lists(st.tuples(cell, cell, st.just("|")), min_size=1))
def test_columns_line_up(rows: list[tuple[str, str, str]]) -> None:
    lines = aligned(rows, right=(0,))
    assert len(lines) == len(rows)
    assert len({width(line) for line in lines}) == 1  # the last cells are alike, so their ends must be
    assert all(line.isprintable() and line.endswith(f"{GAP}|") for line in lines)


def test_numbers_stand_right_and_wide_characters_count_twice() -> None:
    assert aligned([("9", "椅子", "a"), ("10", "box", "b")], right=(0,)) == [" 9  椅子  a", "10  box   b"]


@pytest.mark.parametrize("size", [8, 200])
def test_kitty_gets_the_picture_whole_in_chunks(size: int) -> None:
    data = encoded("PNG", size)
    chunks = [match.groupdict() for match in KITTY.finditer(kitty(data))]
    assert base64.b64decode("".join(chunk["data"] for chunk in chunks)) == data
    assert all(len(chunk["data"]) <= 4096 for chunk in chunks)
    assert [chunk["keys"][-1] for chunk in chunks] == ["1"] * (len(chunks) - 1) + ["0"]
    assert {"a=T", "f=100", "q=2"} <= set(chunks[0]["keys"].split(","))
    assert (len(chunks) > 1) == (size == 200)


def test_kitty_gets_a_jpeg_as_png() -> None:
    (chunk,) = KITTY.finditer(kitty(encoded("JPEG")))
    with Image.open(io.BytesIO(base64.b64decode(chunk["data"]))) as picture:
        assert (picture.format, picture.size) == ("PNG", (8, 8))
    with pytest.raises(InputError, match="a thumbnail cannot be read"):
        kitty(b"no picture")


def test_without_pillow_kitty_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg, png = encoded("JPEG"), encoded("PNG")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"pip install 'stbir-client\[pictures\]'"):
        kitty(jpeg)
    assert KITTY.match(kitty(png))


def test_iterm_gets_the_file_as_it_is() -> None:
    data = encoded("JPEG")
    match = ITERM.fullmatch(iterm(data))
    assert match is not None
    assert base64.b64decode(match["data"]) == data
    assert f"size={len(data)}" in match["keys"].split(";")


@pytest.mark.parametrize(
    ("environment", "draws"),
    [
        ({"TERM": "xterm-kitty"}, kitty),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, kitty),
        ({"TERM": "xterm-ghostty"}, kitty),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, iterm),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, iterm),  # through ssh
        ({"TERM_PROGRAM": "WezTerm"}, iterm),
        ({"TERM": "xterm-256color"}, None),
        ({}, None),
        ({"TERM": "dumb", "TERM_PROGRAM": "iTerm.app"}, None),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
    ],
)
def test_the_terminal_is_known_by_its_variables(environment: dict[str, str], draws: object) -> None:
    assert drawer(environment) is draws
