"""Steered searches over HTTP: the same hits as from Python, and the fields that are refused."""

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

import stbir
from stbir import Negative, PhotoGallery
from tests.serve.conftest import draw_shape, encode_image
from tests.serve.local import request, send

STROKES = [[[0.2, 0.2], [0.8, 0.3], [0.5, 0.8]]]
DISC, BOX = draw_shape(1), draw_shape(2)


@pytest.fixture(scope="module")
def gallery(checkpoint_uri: str, gallery_uri: str) -> PhotoGallery:
    return stbir.open_gallery(gallery_uri, stbir.load(checkpoint_uri, device="cpu"))


def post(app: FastAPI, **kwargs: Any) -> httpx.Response:
    return send(app, "POST", "/v1/search", **kwargs)


def values(hits: Any) -> list[tuple[Any, ...]]:
    names = ("photo_id", "category", "count", "duplicates")
    return [tuple(hit[name] for name in names) for hit in hits]


def assert_same_hits(response: httpx.Response, hits: stbir.Hits) -> None:
    assert response.status_code == 200, response.text
    answered = response.json()["hits"]
    expected = [{**vars(hit), "duplicates": list(hit.duplicates)} for hit in hits]
    assert values(answered) == values(expected)
    assert [hit["score"] for hit in answered] == pytest.approx([hit.score for hit in hits], abs=1e-5)


def base64_of(image: bytes) -> str:
    return base64.b64encode(image).decode()


# The fields of a request, and the arguments of Python.
SEARCHES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "texts": ({"text": "red", "without": ["a disc", "blue"]}, {"text": "red", "without": ["a disc", "blue"]}),
    "weight": (
        {"text": "red", "without": [{"text": "blue", "weight": 0.9}]},
        {"text": "red", "without": [Negative("blue", weight=0.9)]},
    ),
    "sketches": (
        {"strokes": STROKES, "without": [{"sketch": STROKES, "text": "x"}, {"sketch": base64_of(DISC)}]},
        {"sketch": STROKES, "without": [Negative("x", STROKES), Negative(sketch=DISC)]},
    ),
    "marks": (
        {"text": "red", "like": ["shape/03", "shape/05"], "unlike": ["shape/04"]},
        {"text": "red", "like": ["shape/03", "shape/05"], "unlike": ["shape/04"]},
    ),
    "like alone": ({"like": ["shape/03"]}, {"like": ["shape/03"]}),
    "group": ({"text": "red", "group": True}, {"text": "red", "group": True}),
    "all": (
        {
            **{"sketch": base64_of(BOX), "text": "a", "sketch_weight": 0.3, "without": ["red"]},
            **{"like": ["shape/03"], "unlike": ["shape/00"], "group": True, "category": "disc"},
        },
        {
            **{"sketch": BOX, "text": "a", "sketch_weight": 0.3, "without": ["red"]},
            **{"like": ["shape/03"], "unlike": ["shape/00"], "group": True, "category": "disc"},
        },
    ),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_hits_equal_those_of_python(app: FastAPI, gallery: PhotoGallery, name: str) -> None:
    fields, arguments = SEARCHES[name]
    response = post(app, json={**fields, "k": 9})
    assert_same_hits(response, gallery.search(k=9, **arguments))
    marks = {*fields.get("like", ()), *fields.get("unlike", ())}
    assert not marks & {hit["photo_id"] for hit in response.json()["hits"]}


def test_a_form_holds_lists_as_json(app: FastAPI, gallery: PhotoGallery) -> None:
    lists = {"without": ["blue"], "like": ["shape/03"], "unlike": ["shape/05"]}
    form = {"text": "red", "group": "true", **{name: json.dumps(value) for name, value in lists.items()}}
    response = post(app, data=form, files={"sketch": ("sketch", DISC)})
    assert_same_hits(response, gallery.search(DISC, "red", group=True, **lists))


def test_the_photo_of_a_photo_id_is_no_hit_and_in_no_group(app: FastAPI) -> None:
    response = post(app, json={"photo_id": "shape/03", "without": ["red"], "group": True, "k": 24})
    found = [name for hit in response.json()["hits"] for name in (hit["photo_id"], *hit["duplicates"])]
    assert sorted(found) == [f"shape/{n:02d}" for n in range(24) if n != 3]


def test_steered_searches_of_a_group_equal_single_ones(app: FastAPI) -> None:
    requests = [{**fields, "k": 5} for fields, _ in SEARCHES.values()]
    requests += [{"text": "blue"}, {"text": "blue", "without": [{"sketch": base64_of(encode_blank())}]}]

    async def send_all() -> list[httpx.Response]:
        return await asyncio.gather(*(request(app, "POST", "/v1/search", json=each) for each in requests))

    together = asyncio.run(send_all())
    for fields, response in zip(requests, together, strict=True):
        single = post(app, json=fields)
        assert response.status_code == single.status_code
        answers = [each.json().get("hits", []) for each in (response, single)]
        assert values(answers[0]) == values(answers[1])
    assert [each.status_code for each in together] == [200] * (len(requests) - 1) + [422]


def encode_blank() -> bytes:
    """A sketch with nothing drawn on it."""
    return encode_image(Image.new("RGB", (64, 64), "white"))


@pytest.mark.parametrize(
    ("fields", "status", "detail"),
    [
        ({"without": ["red"]}, 400, "the query is empty"),
        ({"unlike": ["shape/00"]}, 400, "the query is empty"),
        ({"text": "a", "without": "red"}, 422, "without: Invalid JSON"),
        ({"text": "a", "without": "1" * 20_000}, 422, "without: 20000 characters exceed the limit of 16384"),
        ({"text": "a", "without": {"text": "red"}}, 422, "without: not a list"),
        ({"text": "a", "without": [""]}, 422, "without.0: neither text nor sketch"),
        ({"text": "a", "without": ["red", {}]}, 422, "without.1: neither text nor sketch"),
        ({"text": "a", "without": [{"txet": "red"}]}, 422, "without.0.txet: "),
        ({"text": "a", "without": [{"text": "red", "weight": 2}]}, 422, "without.0.weight: "),
        ({"text": "a", "without": [3]}, 422, "without.0: "),
        ({"text": "a", "without": ["b"] * 5}, 422, "without: 5 negatives exceed the limit of 4"),
        ({"text": "a", "without": ["b" * 1001]}, 422, "without.0.text: 1001 characters"),
        ({"text": "a", "without": ["b " * 65]}, 422, "without.0.text: 65 words"),
        ({"text": "a", "without": [{"sketch": []}]}, 422, "without.0.sketch: no stroke"),
        ({"text": "a", "without": [{"sketch": "bm8="}]}, 415, "without.0.sketch: not an image"),
        ({"text": "a", "without": ["b", {"sketch": base64_of(encode_blank())}]}, 422, "without.1.sketch: "),
        ({"text": "a", "like": ["nowhere"]}, 422, "like.0: 'nowhere' is not in the gallery"),
        ({"text": "a", "unlike": ["shape/00", "x"]}, 422, "unlike.1: 'x' is not in the gallery"),
        ({"text": "a", "like": ["shape/00"], "unlike": ["shape/00"]}, 422, "unlike.0: 'shape/00' is in"),
        ({"text": "a", "like": [7]}, 422, "like.0: "),
        ({"text": "a", "like": [""]}, 422, "like.0: "),
        ({"text": "a", "like": ["x" * 1001]}, 422, "like.0: 1001 characters"),
        ({"text": "a", "like": ["x"] * 60, "unlike": ["y"] * 60}, 422, "like and unlike: 120 photos"),
        ({"text": "a", "group": "sometimes"}, 422, "group: "),
    ],
)
def test_invalid_steering_is_refused(app: FastAPI, fields: dict[str, Any], status: int, detail: str) -> None:
    response = post(app, json=fields)
    assert (response.status_code, response.json()["detail"][: len(detail)]) == (status, detail)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"without": "red"}, r"without: 'red' is not a list"),
        ({"like": "shape/00"}, r"like: 'shape/00' is not a list"),
        ({"without": ["red", Negative()]}, r"without.1: neither text nor sketch"),
        ({"without": [Negative("red", weight=1.5)]}, r"without.0.weight: 1.5"),
        ({"without": [Negative(sketch=encode_blank())]}, r"without.0.sketch: "),
        ({"like": ["x"]}, r"like.0: 'x' is not in the gallery"),
    ],
)
def test_invalid_steering_is_refused_in_python(
    gallery: PhotoGallery, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(stbir.InputError, match=message):
        gallery.search(text="a", **arguments)
