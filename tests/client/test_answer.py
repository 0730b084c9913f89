"""Answers, typed; and everything that is none."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stbir_client.answer import Answer, Gallery, Hit, Info, read_answer, read_info
from stbir_client.errors import AnswerError
from tests.client.conftest import CHECKPOINT, FOUND

GALLERY = {"version": 3, "count": 24, "categories": ["box", "disc"]}
INFO: dict[str, Any] = {
    "model": {"checkpoint": CHECKPOINT, "dim": 32},
    "gallery": GALLERY,
    "limits": {"k": 100},
}
NAMES = [*FOUND, *INFO, *GALLERY]
trees = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=9,
)


def test_every_field_is_read() -> None:
    first = Hit("shoe/7", 0.91, "shoe", "/v1/photos/shoe%2F7", "a red strap")
    answer = read_answer(FOUND, "id")
    assert answer.hits[0] == first
    assert answer.hits[1].text is None
    assert answer == Answer(answer.hits, 3, CHECKPOINT, {"search": 1.5, "total": 4.25}, "id")


def test_an_older_service_tells_no_texts() -> None:
    hits = [{name: value for name, value in hit.items() if name != "text"} for hit in FOUND["hits"]]
    assert [hit.text for hit in read_answer({**FOUND, "hits": hits}, "id").hits] == [None, None]
    with pytest.raises(AnswerError, match="5 is no text"):
        read_answer({**FOUND, "hits": [{**FOUND["hits"][0], "text": 5}]}, "id")


def test_info_of_older_and_newer_services() -> None:
    gallery = Gallery(3, 24, ("box", "disc"))
    assert read_info(INFO) == Info(INFO["model"], gallery, {"k": 100}, ("sketch", "text"))
    newest = {**GALLERY, "since": "now", "columns": {"price": "double"}}
    newer = {**INFO, "queries": ["sketch", "text", "photo_id"], "gallery": newest}
    gallery = Gallery(3, 24, ("box", "disc"), {"price": "double"})
    assert read_info(newer) == Info(INFO["model"], gallery, {"k": 100}, ("sketch", "text", "photo_id"))
    assert read_info({**INFO, "gallery": None}).gallery is None


@pytest.mark.parametrize("name", FOUND)
def test_every_field_must_be_there(name: str) -> None:
    with pytest.raises(AnswerError, match=name):
        read_answer({key: value for key, value in FOUND.items() if key != name}, "")


@settings(max_examples=50)
@given(trees)
def test_nothing_else_is_taken_for_an_answer(tree: Any) -> None:
    """Whatever the JSON, the error is that one, in one line."""
    with pytest.raises(AnswerError) as error:
        read_answer(tree, "")
    assert str(error.value).isprintable()
    with pytest.raises(AnswerError) as error:
        read_info(tree)
    assert str(error.value).isprintable()
