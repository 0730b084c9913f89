"""What is sent, and what is refused before it is sent."""

import json
import math
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbir_client.call import search_call, thumbnail_call
from stbir_client.condition import Condition
from stbir_client.errors import InputError

PICTURE = b"\x89PNG picture"
share = st.floats(0, 1)


def search(sketch: Any = None, text: Any = None, k: Any = 10, weight: Any = 0.5, category: Any = None) -> Any:
    return search_call(sketch, text, k, weight, category)


def test_a_picture_is_a_file_of_a_form(tmp_path: Path) -> None:
    path = tmp_path / "me.png"
    path.write_bytes(PICTURE)
    calls = [search(sketch, "red", 3, 1, "shoe") for sketch in (str(path), path, PICTURE, bytearray(PICTURE))]
    assert all(call == calls[0] for call in calls)
    assert calls[0].body["files"]["sketch"][1] == PICTURE
    assert calls[0].body["data"] == {"k": 3, "sketch_weight": 1, "text": "red", "category": "shoe"}


def test_text_alone_is_json() -> None:
    assert search(text=" red strap ").body == {"json": {"k": 10, "sketch_weight": 0.5, "text": "red strap"}}


@given(st.lists(st.lists(st.tuples(share, share))))
def test_strokes_arrive_as_they_were_drawn(strokes: list[list[tuple[float, float]]]) -> None:
    request = httpx.Request("POST", "http://host", **search(strokes, "red").body)
    drawn = [[list(point) for point in stroke] for stroke in strokes if stroke]
    assert json.loads(request.content).get("sketch", []) == drawn


def test_a_photo_stands_in_place_of_a_sketch() -> None:
    body = search_call(None, "red", 10, 0.5, None, "chair/7").body["json"]
    assert body == {"k": 10, "sketch_weight": 0.5, "text": "red", "photo_id": "chair/7"}
    with pytest.raises(InputError, match="photo_id: stands in place of a sketch"):
        search_call(PICTURE, None, 10, 0.5, None, "chair/7")


def test_conditions_stand_beside_words_and_strokes_and_in_forms_as_text() -> None:
    where = [Condition("price", "lt", 30), Condition("shop", "in", ("a", "b"))]
    told = [
        {"column": "price", "op": "lt", "value": 30},
        {"column": "shop", "op": "in", "value": ["a", "b"]},
    ]
    for sketch in (None, [[(0.5, 0.5)]]):
        assert search_call(sketch, "red", 10, 0.5, None, None, where).body["json"]["where"] == told
    assert json.loads(search_call(PICTURE, None, 10, 0.5, None, None, where).body["data"]["where"]) == told
    assert "where" not in search(PICTURE).body["data"] | search(text="red").body["json"]


def test_strokes_and_counts_of_numpy() -> None:
    strokes = np.array([[[0.25, 0.5], [0.75, 1.0]]], np.float32)
    body = search(strokes, k=np.int64(4)).body["json"]
    assert (body["sketch"], body["k"]) == ([[(0.25, 0.5), (0.75, 1.0)]], 4)


@given(st.text(min_size=1))
def test_any_photo_id_is_one_part_of_a_path(photo_id: str) -> None:
    path = thumbnail_call(photo_id).path
    assert unquote(path.removeprefix("v1/photos/")) == photo_id
    assert path.count("/") == 2
    assert path.isascii()


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({}, "nothing to search by"),
        ({"text": "  "}, "nothing to search by"),
        ({"sketch": []}, "nothing to search by"),
        ({"sketch": [[], []]}, "nothing to search by"),
        ({"sketch": b""}, "sketch: no bytes"),
        ({"sketch": "nowhere/me.png"}, "sketch: nowhere/me.png cannot be read (No such file"),
        ({"sketch": "a\0b"}, "sketch: a\0b cannot be read"),
        ({"sketch": "."}, "sketch: . cannot be read (Is a directory"),
        ({"sketch": 5}, "sketch: give a path"),
        ({"sketch": [[0.5, 0.5]]}, "sketch: give a path"),
        ({"sketch": [[(0.5, 0.5, 0.5)]]}, "sketch: give a path"),
        ({"sketch": [[(0.5, 1.5)]]}, "sketch: y: 1.5 is not between 0 and 1"),
        ({"sketch": [[(math.nan, 0)]]}, "sketch: x: nan is not between"),
        ({"sketch": [[("left", 0)]]}, "sketch: x: 'left' is no number"),
        ({"text": "red", "k": 0}, "k: 0 is below 1"),
        ({"text": "red", "k": 2.0}, "k: 2.0 is no whole number"),
        ({"text": "red", "weight": -0.1}, "sketch_weight: -0.1"),
        ({"text": "red", "weight": math.inf}, "sketch_weight: inf"),
        ({"text": "red", "weight": None}, "sketch_weight: None is no number"),
        ({"text": "\udcff"}, "text: has characters"),
        ({"text": "red", "category": "\udcff"}, "category: has characters"),
    ],
)
def test_what_is_not_sent(given_: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as error:
        search(**given_)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_file_and_an_empty_id(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match=r"empty\.png is empty; give a PNG"):
        search(tmp_path / "empty.png")
    with pytest.raises(InputError, match="photo_id: is empty"):
        thumbnail_call("")
