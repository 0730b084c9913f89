"""`POST /v1/explain` on the real replicas, without Ray."""

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

import stbir
from serve.messages import Query
from serve.settings import MAX_EXPLANATIONS
from stbir.images import encode_png, render_strokes
from tests.serve.local import send
from tests.serve.test_ingress import FakeHandle, fake_searcher

STROKES = [[[0.1, 0.2], [0.8, 0.3], [0.5, 0.9]], [[0.4, 0.4]]]
URL = "/v1/explain?hit=shape%2F07"


def post(app: FastAPI, url: str = URL, **kwargs: Any) -> httpx.Response:
    return send(app, "POST", url, **kwargs)


@pytest.mark.parametrize(
    ("fields", "query"),
    [
        ({"strokes": STROKES}, {"sketch": STROKES}),
        ({"text": "a red disc"}, {"text": "a red disc"}),
        (
            {"strokes": STROKES, "text": " a red disc", "sketch_weight": 0.2, "k": 3, "like": ["shape/01"]},
            {"sketch": STROKES, "text": "a red disc", "sketch_weight": 0.2},
        ),
    ],
)
def test_explanation_is_that_of_the_python_interface(
    app: FastAPI, checkpoint_uri: str, gallery_uri: str, fields: dict[str, Any], query: dict[str, Any]
) -> None:
    gallery = stbir.open_gallery(gallery_uri, stbir.load(checkpoint_uri, device="cpu"))
    expected = gallery.explain("shape/07", **query)
    result = post(app, json=fields).raise_for_status().json()
    assert result["score"] == pytest.approx(expected.score, abs=1e-5)
    assert [word for word, _ in result["words"]] == fields.get("text", "").split()
    assert dict(result["words"]) == pytest.approx(dict(expected.words), abs=1e-5)
    if "strokes" in fields:
        np.testing.assert_allclose(result["cells"], expected.cells, atol=1e-5)
        assert np.count_nonzero(result["cells"]) >= 8
    else:
        assert result["cells"] is expected.cells is None


def test_image_is_a_file_of_a_form(app: FastAPI) -> None:
    image = encode_png(render_strokes([[tuple(point) for point in stroke] for stroke in STROKES]))
    by_form = post(app, files={"sketch": ("me.png", image)}, data={"text": "red"}).json()
    by_strokes = post(app, json={"strokes": STROKES, "text": "red"}).json()
    np.testing.assert_allclose(by_form["cells"], by_strokes["cells"], atol=1e-6)


@pytest.mark.parametrize(
    ("url", "fields", "status", "detail"),
    [
        ("/v1/explain?hit=none", {"text": "red"}, 404, "hit: 'none' is not in the gallery"),
        ("/v1/explain", {"text": "red"}, 422, "query.hit: Field required"),
        (URL, {}, 400, "the query is empty"),
        (URL, {"photo_id": "shape/01"}, 422, "query: a sketch, a text or both are explained"),
        (URL, {"photo_id": "shape/01", "text": "red"}, 422, "query: a sketch, a text or both are explained"),
        (URL, {"like": ["shape/01"]}, 422, "query: a sketch, a text or both are explained"),
        (URL, {"text": "椅" * 65}, 422, "text: 65 words exceed the 64 that are explained"),
        (URL, {"sketch": "bm90IGFuIGltYWdl"}, 415, "sketch: not an image"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    app: FastAPI, url: str, fields: dict[str, Any], status: int, detail: str
) -> None:
    response = post(app, url, json=fields)
    assert response.status_code == status
    assert response.json()["detail"].startswith(detail)


def test_searches_do_not_wait_for_many_explanations() -> None:
    """An ingress sends the parts of MAX_EXPLANATIONS queries at a time."""
    searcher = fake_searcher(None)
    searcher.text = FakeHandle(asyncio.Event())

    async def scenario() -> int:
        query = Query(None, "red", 1, 0.5, None)
        tasks = [asyncio.ensure_future(searcher.explain(query, "a")) for _ in range(5)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(searcher.text.calls)

    assert asyncio.run(scenario()) == MAX_EXPLANATIONS
