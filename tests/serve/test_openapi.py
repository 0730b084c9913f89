"""The description of the interface, held against JSON Schema and against what is answered."""

import asyncio
import json
from typing import Any

import httpx
import jsonschema
import pytest
from fastapi import FastAPI

from serve.settings import read_settings
from tests.serve.local import application


@pytest.fixture(scope="module")
def app(checkpoint_uri: str, gallery_uri: str) -> FastAPI:
    return application(checkpoint_uri, gallery_uri)


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    return ask(app, "GET", "/openapi.json").json()


def ask(app: FastAPI, method: str, path: str, **request: Any) -> httpx.Response:
    async def one() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, **request)

    return asyncio.run(one())


def follows(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> None:
    """Raises where the value is not what the schema, which may point into the document, says."""
    whole = {**schema, "components": document["components"]}
    jsonschema.Draft202012Validator.check_schema(whole)
    jsonschema.Draft202012Validator(whole).validate(value)


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_for_programs_is_described(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert set(operations(document)) == {
        ("post", "/v1/search"),
        ("get", "/v1/photos/{photo_id}"),
        ("get", "/v1/info"),
        ("get", "/healthz"),
        ("get", "/readyz"),
    }


def test_every_example_follows_its_schema(document: dict[str, Any]) -> None:
    seen = 0
    for operation in operations(document).values():
        parts = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in (content for part in parts for content in part.get("content", {}).values()):
            examples = [each["value"] for each in content.get("examples", {}).values()]
            for example in [*examples, *([content["example"]] if "example" in content else [])]:
                follows(example, content["schema"], document)
                seen += 1
    assert seen > 20


def test_examples_of_searches_are_answered(app: FastAPI, document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/search"]["post"]["requestBody"]["content"]
    for example in content["application/json"]["examples"].values():
        search = {name: value for name, value in example["value"].items() if name != "category"}
        assert ask(app, "POST", "/v1/search", json=search).status_code == 200
    assert content["multipart/form-data"]["schema"]["properties"]["sketch"]["format"] == "binary"


@pytest.mark.parametrize(
    ("method", "path", "described", "request_"),
    [
        ("post", "/v1/search", "/v1/search", {"json": {"text": "a chair"}}),
        ("post", "/v1/search", "/v1/search", {"json": {}}),
        ("post", "/v1/search", "/v1/search", {"json": {"text": "a", "k": 0}}),
        ("post", "/v1/search", "/v1/search", {"content": b"x", "headers": {"content-type": "text/plain"}}),
        ("get", "/v1/photos/none", "/v1/photos/{photo_id}", {}),
        ("get", "/v1/photos/none", "/v1/photos/{photo_id}", {"headers": {"x-forwarded-for": "192.0.2.1"}}),
        ("get", "/v1/info", "/v1/info", {}),
        ("get", "/readyz", "/readyz", {}),
    ],
)
def test_answers_are_as_described(
    app: FastAPI, document: dict[str, Any], method: str, path: str, described: str, request_: dict[str, Any]
) -> None:
    answer = ask(app, method, path, **request_)
    told = document["paths"][described][method]["responses"][str(answer.status_code)]
    content = told["content"][answer.headers["content-type"]]
    follows(json.loads(answer.text), content["schema"], document)


def test_bounds_are_those_of_the_settings(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/search"]["post"]["requestBody"]["content"]
    limits = read_settings().limits
    for schema in (content["application/json"]["schema"], content["multipart/form-data"]["schema"]):
        assert schema["properties"]["k"]["maximum"] == limits.k
        with pytest.raises(jsonschema.ValidationError):
            follows({"text": "a" * (limits.characters + 1)}, schema, document)
    schema = content["application/json"]["schema"]
    for strokes in ([[[2, 0]]], [[[0.5]]], [0.5]):
        with pytest.raises(jsonschema.ValidationError):
            follows({"strokes": strokes}, schema, document)
    follows({"strokes": [[[0, 1], [0.5, 0.5]], []]}, schema, document)


def test_a_photo_is_a_picture_as_described(app: FastAPI, document: dict[str, Any]) -> None:
    found = ask(app, "POST", "/v1/search", json={"strokes": [[[0, 0], [1, 1]]]}).json()
    photo = ask(app, "GET", found["hits"][0]["uri"])
    responses = document["paths"]["/v1/photos/{photo_id}"]["get"]["responses"]
    assert photo.headers["content-type"] in responses["200"]["content"]
