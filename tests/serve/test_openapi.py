"""The OpenAPI document against JSON Schema and against real responses."""

from typing import Any

import jsonschema
import pytest
from fastapi import FastAPI

from serve.settings import read_settings
from tests.serve.local import send


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    return send(app, "GET", "/openapi.json").json()


def validate(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> None:
    """Raises if the value does not match the schema, whose references point into the document."""
    resolved = {**schema, "components": document["components"]}
    jsonschema.Draft202012Validator.check_schema(resolved)
    jsonschema.Draft202012Validator(resolved).validate(value)


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_document_has_all_api_routes(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert set(operations(document)) == {
        ("post", "/v1/search"),
        ("post", "/v1/explain"),
        ("get", "/v1/photos/{photo_id}"),
        ("get", "/v1/info"),
        ("get", "/v1/galleries"),
        ("post", "/v1/galleries/{gallery}/search"),
        ("post", "/v1/galleries/{gallery}/explain"),
        ("get", "/v1/galleries/{gallery}/photos/{photo_id}"),
        ("get", "/v1/galleries/{gallery}/info"),
        ("get", "/healthz"),
        ("get", "/readyz"),
    }


def test_examples_match_their_schemas(document: dict[str, Any]) -> None:
    count = 0
    for operation in operations(document).values():
        parts = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in (content for part in parts for content in part.get("content", {}).values()):
            examples = [example["value"] for example in content.get("examples", {}).values()]
            for example in [*examples, *([content["example"]] if "example" in content else [])]:
                validate(example, content["schema"], document)
                count += 1
    assert count > 20


def test_search_examples_are_answered(app: FastAPI, document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/search"]["post"]["requestBody"]["content"]
    for example in content["application/json"]["examples"].values():
        # The names of another gallery, and what this checkpoint does not know.
        of_a_gallery = ("category", "like", "unlike", "min_match")
        fields = {name: value for name, value in example["value"].items() if name not in of_a_gallery}
        assert send(app, "POST", "/v1/search", json=fields).status_code == 200
    assert content["multipart/form-data"]["schema"]["properties"]["sketch"]["format"] == "binary"


@pytest.mark.parametrize(
    ("method", "path", "route", "kwargs"),
    [
        ("post", "/v1/search", "/v1/search", {"json": {"text": "a chair"}}),
        ("post", "/v1/search", "/v1/search", {"json": {}}),
        ("post", "/v1/search", "/v1/search", {"json": {"text": "a", "k": 0}}),
        ("post", "/v1/search", "/v1/search", {"content": b"x", "headers": {"content-type": "text/plain"}}),
        ("post", "/v1/explain?hit=shape%2F07", "/v1/explain", {"json": {"text": "a red chair"}}),
        ("post", "/v1/explain?hit=shape%2F07", "/v1/explain", {"json": {"strokes": [[[0, 0], [1, 1]]]}}),
        ("post", "/v1/explain?hit=none", "/v1/explain", {"json": {"text": "a chair"}}),
        ("get", "/v1/photos/none", "/v1/photos/{photo_id}", {}),
        ("get", "/v1/photos/none", "/v1/photos/{photo_id}", {"headers": {"x-forwarded-for": "192.0.2.1"}}),
        ("get", "/v1/info", "/v1/info", {}),
        ("get", "/v1/galleries", "/v1/galleries", {}),
        ("get", "/v1/galleries/default/info", "/v1/galleries/{gallery}/info", {}),
        ("get", "/v1/galleries/none/info", "/v1/galleries/{gallery}/info", {}),
        ("post", "/v1/galleries/default/search", "/v1/galleries/{gallery}/search", {"json": {"text": "a"}}),
        ("get", "/readyz", "/readyz", {}),
    ],
)
def test_responses_match_the_document(
    app: FastAPI, document: dict[str, Any], method: str, path: str, route: str, kwargs: dict[str, Any]
) -> None:
    response = send(app, method, path, **kwargs)
    schemas = document["paths"][route][method]["responses"][str(response.status_code)]["content"]
    validate(response.json(), schemas[response.headers["content-type"]]["schema"], document)


def test_schema_has_the_limits_of_the_settings(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/search"]["post"]["requestBody"]["content"]
    limits = read_settings().limits
    for schema in (content["application/json"]["schema"], content["multipart/form-data"]["schema"]):
        assert schema["properties"]["k"]["maximum"] == limits.k
        with pytest.raises(jsonschema.ValidationError):
            validate({"text": "a" * (limits.characters + 1)}, schema, document)
    schema = content["application/json"]["schema"]
    for strokes in ([[[2, 0]]], [[[0.5]]], [0.5]):
        with pytest.raises(jsonschema.ValidationError):
            validate({"strokes": strokes}, schema, document)
    validate({"strokes": [[[0, 1], [0.5, 0.5]], []]}, schema, document)


def test_photo_has_a_documented_media_type(app: FastAPI, document: dict[str, Any]) -> None:
    result = send(app, "POST", "/v1/search", json={"strokes": [[[0, 0], [1, 1]]]}).json()
    photo = send(app, "GET", result["hits"][0]["uri"])
    responses = document["paths"]["/v1/photos/{photo_id}"]["get"]["responses"]
    assert photo.headers["content-type"] in responses["200"]["content"]
