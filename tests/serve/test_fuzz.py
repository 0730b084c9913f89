"""Whatever is sent, the answer is a search's or a problem's, and says which: never a fault of the server."""

import asyncio
import io
import itertools
import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis.checks import positive_data_acceptance

from stbir.images import sketch_pixels
from tests.serve import hostile
from tests.serve.local import application

# Pillow warns, goes on, and so do we.
pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
EXPECTED = {200, 400, 404, 413, 415, 422}
EXAMPLES = 25


@pytest.fixture(scope="module")
def app(checkpoint_uri: str, gallery_uri: str) -> FastAPI:
    return application(checkpoint_uri, gallery_uri)


def answers(app: FastAPI, requests: Iterator[tuple[str, bytes]]) -> list[httpx.Response]:
    """Of searches with these content types and bodies, one after the other."""

    async def send() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return [
                await client.post("/v1/search", content=body, headers={"content-type": kind})
                for kind, body in requests
            ]

    return asyncio.run(send())


def check(answer: httpx.Response) -> None:
    """It is one of ours, and says so."""
    assert answer.status_code in EXPECTED, (answer.status_code, answer.text, answer.request.content[:300])
    body = json.loads(answer.text)
    if answer.status_code == 200:
        assert body["hits"]
    else:
        assert answer.headers["content-type"] == "application/problem+json"
        assert body["detail"]
        assert "\n" not in body["detail"]
        assert "0x" not in body["detail"]


@pytest.mark.parametrize("name", hostile.pictures())
def test_a_picture_is_searched_by_or_refused_for_what_it_is(app: FastAPI, name: str) -> None:
    data, statuses = hostile.pictures()[name]
    [answer] = answers(app, iter([(hostile.FORM, hostile.form(sketch=data))]))
    assert answer.status_code in statuses, answer.text
    check(answer)


def test_json_of_any_kind_is_answered(app: FastAPI) -> None:
    for answer in answers(app, ((hostile.JSON, body) for body in hostile.json_bodies())):
        check(answer)


def test_texts_of_any_kind_are_answered_in_forms(app: FastAPI) -> None:
    forms = (hostile.form(text=text.encode()) for text in hostile.texts())
    for answer in answers(app, ((hostile.FORM, body) for body in forms)):
        check(answer)


def test_bent_requests_are_answered(app: FastAPI) -> None:
    for answer in answers(app, itertools.islice(hostile.bent(seed=0), 300)):
        check(answer)


def test_a_sketch_is_searched_by_as_it_is_held(app: FastAPI) -> None:
    """EXIF turns sketches as it does in training, where one function decodes them all."""
    upright = sketch_pixels(hostile.turned(1), 64)
    for orientation in (3, 6, 8):
        np.testing.assert_array_equal(sketch_pixels(hostile.turned(orientation), 64), upright)
    bodies = [hostile.form(sketch=hostile.turned(orientation)) for orientation in (1, 3, 6, 8)]
    found = [answer.json()["hits"] for answer in answers(app, ((hostile.FORM, body) for body in bodies))]
    assert all(hits == found[0] for hits in found)
    [sideways] = answers(app, iter([(hostile.FORM, hostile.form(sketch=_as_it_lies(hostile.turned(6))))]))
    assert sideways.json()["hits"] != found[0]


def _as_it_lies(picture: bytes) -> bytes:
    """The same pixels, without EXIF."""

    opened = Image.open(io.BytesIO(picture))
    return hostile.saved(Image.fromarray(np.asarray(opened)), "PNG")


@pytest.mark.parametrize(("path", "method"), [("/v1/search", "POST"), ("/v1/photos/{photo_id}", "GET")])
def test_what_the_description_allows_and_forbids_is_answered_as_it_says(
    app: FastAPI, path: str, method: str
) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)

    @given(st.data())
    @settings(
        max_examples=EXAMPLES,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def holds(data: st.DataObject) -> None:
        case = data.draw(schema[path][method].as_strategy())
        # What a schema cannot say (a blank text, base64 of no picture) is refused with a reason.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    holds()
