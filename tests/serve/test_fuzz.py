"""Fuzzing: each request is answered with hits or problem details, never with a server error."""

import asyncio
import io
import itertools
from collections.abc import Iterable

import httpx
import numpy as np
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from ray.exceptions import RayTaskError
from schemathesis.checks import positive_data_acceptance

from serve.deployments.error_mapping import to_problem
from serve.problem import Problem
from stbir.errors import ImageTooLargeError, InputError, NoStrokeError
from stbir.images import decode_sketch
from tests.serve import hostile

pytestmark = [
    pytest.mark.slow(reason="a thousand requests to real encoders"),
    # Pillow warns of broken EXIF and decodes the image.
    pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning"),
]
EXPECTED_STATUSES = {200, 400, 404, 413, 415, 422}
EXAMPLES = 25


def search(app: FastAPI, requests: Iterable[tuple[str, bytes]]) -> list[httpx.Response]:
    """The responses to searches with these content types and bodies, sent in order."""

    async def send() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return [
                await client.post("/v1/search", content=body, headers={"content-type": content_type})
                for content_type, body in requests
            ]

    return asyncio.run(send())


def search_form(app: FastAPI, **fields: bytes) -> httpx.Response:
    [response] = search(app, [(hostile.FORM, hostile.form(**fields))])
    return response


def check(response: httpx.Response) -> None:
    """The response has hits, or problem details without internals."""
    sent = response.request.content[:300]
    assert response.status_code in EXPECTED_STATUSES, (response.status_code, response.text, sent)
    body = response.json()
    if response.status_code == 200:
        assert body["hits"]
    else:
        assert response.headers["content-type"] == "application/problem+json"
        assert body["detail"]
        assert "\n" not in body["detail"]
        assert "0x" not in body["detail"]


@pytest.mark.parametrize("name", hostile.images())
def test_image_gets_one_of_its_valid_statuses(app: FastAPI, name: str) -> None:
    data, statuses = hostile.images()[name]
    response = search_form(app, sketch=data)
    assert response.status_code in statuses, response.text
    check(response)


@pytest.mark.parametrize(
    ("error", "status"), [(ImageTooLargeError("sketch: 9"), 413), (NoStrokeError("sketch: no stroke"), 422)]
)
def test_invalid_sketch_has_the_status_of_its_error(error: InputError, status: int) -> None:
    for raised in (error, RayTaskError("decode", "", error).as_instanceof_cause()):
        problem = to_problem(raised, retry_after_s=1)
        assert isinstance(problem, Problem)
        assert (problem.status, problem.detail) == (status, str(error))


def test_json_bodies_are_answered(app: FastAPI) -> None:
    for response in search(app, ((hostile.JSON, body) for body in hostile.json_bodies())):
        check(response)


def test_texts_in_forms_are_answered(app: FastAPI) -> None:
    forms = (hostile.form(text=text.encode()) for text in hostile.texts())
    for response in search(app, ((hostile.FORM, body) for body in forms)):
        check(response)


def test_mutated_requests_are_answered(app: FastAPI) -> None:
    for response in search(app, itertools.islice(hostile.mutated_requests(seed=0), 300)):
        check(response)


def test_exif_orientation_of_a_sketch_is_applied(app: FastAPI) -> None:
    """As in training, which decodes sketches with the same function."""
    upright = decode_sketch(hostile.with_orientation(1), 64)
    for orientation in (3, 6, 8):
        np.testing.assert_array_equal(decode_sketch(hostile.with_orientation(orientation), 64), upright)
    sketches = [hostile.with_orientation(orientation) for orientation in (1, 3, 6, 8)]
    results = [search_form(app, sketch=sketch).json()["hits"] for sketch in sketches]
    assert all(hits == results[0] for hits in results)
    sideways = search_form(app, sketch=_remove_exif(hostile.with_orientation(6)))
    assert sideways.json()["hits"] != results[0]


def _remove_exif(image: bytes) -> bytes:
    return hostile.encode(Image.fromarray(np.asarray(Image.open(io.BytesIO(image)))), "PNG")


@pytest.mark.parametrize(("path", "method"), [("/v1/search", "POST"), ("/v1/photos/{photo_id}", "GET")])
def test_generated_requests_get_documented_responses(app: FastAPI, path: str, method: str) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)

    @given(st.data())
    @settings(
        max_examples=EXAMPLES,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def validate(data: st.DataObject) -> None:
        case = data.draw(schema[path][method].as_strategy())
        # The schema allows some requests that are refused: a blank text, or base64 that is not an image.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    validate()
