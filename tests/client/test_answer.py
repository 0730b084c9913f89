"""Parsing of valid and invalid answers."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stbir_client.answer import (
    Answer,
    Explanation,
    Gallery,
    Hit,
    Info,
    parse_answer,
    parse_explanation,
    parse_info,
)
from stbir_client.errors import AnswerError
from tests.client.conftest import CHECKPOINT, SEARCH_RESPONSE

GALLERY = {"version": 3, "count": 24, "categories": ["box", "disc"]}
INFO: dict[str, Any] = {
    "model": {"checkpoint": CHECKPOINT, "dim": 32},
    "gallery": GALLERY,
    "limits": {"k": 100},
}
NAMES = [*SEARCH_RESPONSE, *INFO, *GALLERY]
trees = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=9,
)


def test_all_fields_are_parsed() -> None:
    hit = Hit("shoe/7", 0.91, "shoe", "/v1/photos/shoe%2F7", "a red strap")
    answer = parse_answer(SEARCH_RESPONSE, "id")
    assert answer.hits[0] == hit
    assert answer.hits[1].text is None
    assert answer == Answer(answer.hits, 3, CHECKPOINT, {"search": 1.5, "total": 4.25}, "id")


@pytest.mark.parametrize("cells", [None, [[0, 0.5], [-0.25, 0]]])
def test_an_explanation_is_parsed(cells: list[list[float]] | None) -> None:
    explanation = parse_explanation({"score": 1, "cells": cells, "words": [["red", 0.5]], "new": 1})
    rows = None if cells is None else tuple(map(tuple, cells))
    assert explanation == Explanation(1.0, rows, (("red", 0.5),))
    with pytest.raises(AnswerError, match="/v1/explain: not the answer of a stbir endpoint"):
        parse_explanation({"score": 1, "cells": cells, "words": [["red"]]})


def test_a_hit_of_a_group_has_its_duplicates() -> None:
    [hit, *_] = SEARCH_RESPONSE["hits"]
    tree = {**SEARCH_RESPONSE, "hits": [{**hit, "count": 3, "duplicates": ["a", "b"]}]}
    [parsed] = parse_answer(tree, "id").hits
    assert (parsed.count, parsed.duplicates) == (3, ("a", "b"))
    of_an_older_release = {name: value for name, value in hit.items() if name not in ("count", "duplicates")}
    [parsed] = parse_answer({**SEARCH_RESPONSE, "hits": [of_an_older_release]}, "id").hits
    assert (parsed.count, parsed.duplicates) == (1, ())
    with pytest.raises(AnswerError, match="7 is not a string"):
        parse_answer({**SEARCH_RESPONSE, "hits": [{**hit, "duplicates": [7]}]}, "id")


def test_hits_of_older_releases_have_no_text() -> None:
    hits = [{name: value for name, value in hit.items() if name != "text"} for hit in SEARCH_RESPONSE["hits"]]
    assert [hit.text for hit in parse_answer({**SEARCH_RESPONSE, "hits": hits}, "id").hits] == [None, None]
    with pytest.raises(AnswerError, match="5 is not a string"):
        parse_answer({**SEARCH_RESPONSE, "hits": [{**hits[0], "text": 5}]}, "id")


def test_info_of_older_and_newer_releases() -> None:
    gallery = Gallery(3, 24, ("box", "disc"))
    assert parse_info(INFO) == Info(INFO["model"], gallery, {"k": 100}, ("sketch", "text"))
    new_gallery = {**GALLERY, "since": "now", "columns": {"price": "double"}}
    new_info = {**INFO, "queries": ["sketch", "text", "photo_id"], "gallery": new_gallery}
    gallery = Gallery(3, 24, ("box", "disc"), {"price": "double"})
    assert parse_info(new_info) == Info(INFO["model"], gallery, {"k": 100}, ("sketch", "text", "photo_id"))
    assert parse_info({**INFO, "gallery": None}).gallery is None


@pytest.mark.parametrize("name", SEARCH_RESPONSE)
def test_missing_fields_are_refused(name: str) -> None:
    with pytest.raises(AnswerError, match=name):
        parse_answer({key: value for key, value in SEARCH_RESPONSE.items() if key != name}, "")


@settings(max_examples=50)
@given(trees)
def test_other_json_raises_a_one_line_error(tree: Any) -> None:
    with pytest.raises(AnswerError) as error:
        parse_answer(tree, "")
    assert str(error.value).isprintable()
    with pytest.raises(AnswerError) as error:
        parse_info(tree)
    assert str(error.value).isprintable()
