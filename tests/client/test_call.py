"""The requests of valid input, and the errors of invalid input."""

import base64
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

from stbir_client.call import explain_call, search_call, thumbnail_call
from stbir_client.errors import InputError
from stbir_client.filters import Condition
from stbir_client.steering import Negative

IMAGE = b"\x89PNG image"
fractions = st.floats(0, 1)


def search(sketch: Any = None, text: Any = None, k: Any = 10, weight: Any = 0.5, category: Any = None) -> Any:
    return search_call(sketch, text, k, weight, category)


def test_an_image_is_a_file_of_a_form(tmp_path: Path) -> None:
    path = tmp_path / "me.png"
    path.write_bytes(IMAGE)
    calls = [search(sketch, "red", 3, 1, "shoe") for sketch in (str(path), path, IMAGE, bytearray(IMAGE))]
    assert all(call == calls[0] for call in calls)
    assert calls[0].body["files"]["sketch"][1] == IMAGE
    assert calls[0].body["data"] == {"k": 3, "sketch_weight": 1, "text": "red", "category": "shoe"}


def test_text_is_json() -> None:
    assert search(text=" red strap ").body == {"json": {"k": 10, "sketch_weight": 0.5, "text": "red strap"}}


@given(st.lists(st.lists(st.tuples(fractions, fractions))).filter(any))
def test_strokes_are_sent_exactly(strokes: list[list[tuple[float, float]]]) -> None:
    request = httpx.Request("POST", "http://host", **search(strokes, "red").body)
    expected = [[list(point) for point in stroke] for stroke in strokes if stroke]
    assert json.loads(request.content)["sketch"] == expected


def test_photo_id_replaces_the_sketch() -> None:
    body = search_call(None, "red", 10, 0.5, None, "chair/7").body["json"]
    assert body == {"k": 10, "sketch_weight": 0.5, "text": "red", "photo_id": "chair/7"}
    with pytest.raises(InputError, match="photo_id: replaces the sketch"):
        search_call(IMAGE, None, 10, 0.5, None, "chair/7")


def test_an_explanation_has_the_body_of_a_search() -> None:
    call = explain_call("chair/7", IMAGE, "red", 0.3)
    assert call.path == "v1/explain?hit=chair%2F7"
    assert call.body == search_call(IMAGE, "red", 1, 0.3, None).body
    with pytest.raises(InputError, match="photo_id: is empty"):
        explain_call("", IMAGE, None, 0.5)


def test_filters_are_json_in_a_form_too() -> None:
    where = [Condition("price", "lt", 30), Condition("shop", "in", ("a", "b"))]
    expected = [
        {"column": "price", "op": "lt", "value": 30},
        {"column": "shop", "op": "in", "value": ["a", "b"]},
    ]
    for sketch in (None, [[(0.5, 0.5)]]):
        assert search_call(sketch, "red", 10, 0.5, None, None, where).body["json"]["where"] == expected
    assert json.loads(search_call(IMAGE, None, 10, 0.5, None, None, where).body["data"]["where"]) == expected
    assert "where" not in search(IMAGE).body["data"] | search(text="red").body["json"]


STROKES = [[(0.5, 0.5), (0.6, 0.7)]]


def test_steering_is_json_in_a_form_too() -> None:
    steering: dict[str, Any] = {
        "without": [" red ", Negative("a buckle", STROKES, 0.25)],
        "like": ("shoe/7",),
        "unlike": ["shoe/8"],
        "group": True,
    }
    expected = {
        "without": [{"text": "red"}, {"text": "a buckle", "sketch": STROKES, "weight": 0.25}],
        "like": ["shoe/7"],
        "unlike": ["shoe/8"],
        "group": True,
    }
    body = search_call(None, "strap", 10, 0.5, None, **steering).body["json"]
    assert body == {"k": 10, "sketch_weight": 0.5, "text": "strap", **expected}
    texts = {**steering, "without": ["red"]}
    form = search_call(IMAGE, None, 10, 0.5, None, **texts).body
    assert json.loads(form["data"]["without"]) == [{"text": "red"}]
    assert json.loads(form["data"]["like"]) == ["shoe/7"]
    assert form["data"]["group"] == "true"
    only_like = search_call(None, None, 10, 0.5, None, like=["shoe/7"]).body["json"]
    assert only_like == {"k": 10, "sketch_weight": 0.5, "like": ["shoe/7"]}
    assert not {"without", "like", "unlike", "group"} & search(text="red").body["json"].keys()


def test_images_of_a_query_and_of_a_negative_are_base64(tmp_path: Path) -> None:
    path = tmp_path / "strap.png"
    path.write_bytes(IMAGE)
    encoded = base64.b64encode(IMAGE).decode()
    body = search_call(IMAGE, None, 10, 0.5, None, without=[Negative(sketch=path)]).body["json"]
    assert (body["sketch"], body["without"]) == (encoded, [{"sketch": encoded}])


@pytest.mark.parametrize(
    ("steering", "message"),
    [
        ({"without": "red"}, r"without: 'red' is not a list"),
        ({"without": ["red", " "]}, r"without.1: neither text nor sketch"),
        ({"without": [Negative("red", weight=1.5)]}, r"without.0.weight: 1.5"),
        ({"without": [Negative(sketch="nowhere.png")]}, r"without.0.sketch: nowhere.png cannot be read"),
        ({"without": [3]}, r"without.0: int is neither"),
        ({"like": "shoe/7"}, r"like: 'shoe/7' is not a list"),
        ({"unlike": ["shoe/7", ""]}, r"unlike.1: is empty"),
        ({"like": [7]}, r"like.0: 7 is not a text"),
    ],
)
def test_invalid_steering_is_refused(steering: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        search_call(None, "strap", 10, 0.5, None, **steering)


def test_numpy_strokes_and_counts() -> None:
    strokes = np.array([[[0.25, 0.5], [0.75, 1.0]]], np.float32)
    body = search(strokes, k=np.int64(4)).body["json"]
    assert (body["sketch"], body["k"]) == ([[(0.25, 0.5), (0.75, 1.0)]], 4)


@given(st.text(min_size=1))
def test_any_photo_id_is_one_path_segment(photo_id: str) -> None:
    path = thumbnail_call(photo_id).path
    assert unquote(path.removeprefix("v1/photos/")) == photo_id
    assert path.count("/") == 2
    assert path.isascii()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to search by"),
        ({"text": "  "}, "nothing to search by"),
        ({"sketch": []}, "sketch: no stroke on it"),
        ({"sketch": [[], []], "text": "red"}, "sketch: no stroke on it"),
        ({"sketch": b""}, "sketch: the image is empty"),
        ({"sketch": "nowhere/me.png"}, "sketch: nowhere/me.png cannot be read (No such file"),
        ({"sketch": "a\0b"}, "sketch: a\0b cannot be read"),
        ({"sketch": "."}, "sketch: . cannot be read (Is a directory"),
        ({"sketch": 5}, "sketch: give a path"),
        ({"sketch": [[0.5, 0.5]]}, "sketch: give a path"),
        ({"sketch": [[(0.5, 0.5, 0.5)]]}, "sketch: give a path"),
        ({"sketch": [[(0.5, 1.5)]]}, "sketch: y: 1.5 is not between 0 and 1"),
        ({"sketch": [[(math.nan, 0)]]}, "sketch: x: nan is not between"),
        ({"sketch": [[("left", 0)]]}, "sketch: x: 'left' is not a number"),
        ({"text": "red", "k": 0}, "k: 0 is below 1"),
        ({"text": "red", "k": 2.0}, "k: 2.0 is not an integer"),
        ({"text": "red", "weight": -0.1}, "sketch_weight: -0.1"),
        ({"text": "red", "weight": math.inf}, "sketch_weight: inf"),
        ({"text": "red", "weight": None}, "sketch_weight: None is not a number"),
        ({"text": "\udcff"}, "text: contains characters"),
        ({"text": "red", "category": "\udcff"}, "category: contains characters"),
    ],
)
def test_invalid_input_raises(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        search(**arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_empty_file_and_empty_id(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match=r"empty\.png is empty; give a PNG"):
        search(tmp_path / "empty.png")
    with pytest.raises(InputError, match="photo_id: is empty"):
        thumbnail_call("")
