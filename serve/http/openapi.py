"""The OpenAPI document: request bodies, responses and problems, with an example of each."""

import functools
from copy import deepcopy
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from serve.http.paths import GALLERIES, V1
from serve.http.request import SearchRequest
from serve.http.schemas import (
    EXAMPLE_EXPLANATION,
    EXAMPLE_GALLERIES,
    EXAMPLE_READY,
    EXAMPLE_RESULT,
    EXAMPLES,
    SCHEMAS,
    TEXT,
    Schema,
)
from serve.http.sketch_input import Strokes
from serve.http.steering_input import NegativeInput
from serve.problem import MEDIA_TYPE
from serve.settings import Limits
from stbir.images import QUERY_FORMATS

_DESCRIPTION = (
    "Fine-grained image retrieval by a sketch, a text, or both. Errors are RFC 9457 problem details; 429 and"
    " 503 have a Retry-After header. Every response has an X-Request-Id header."
)
_STATUS_DESCRIPTIONS = {
    400: "the query is empty",
    401: "the API key is missing or wrong",
    403: "no API keys are configured, and the request is from another machine or a page of another site",
    404: "the gallery has no such photo, or the client may use no such gallery",
    413: "the body or the sketch is too large",
    415: "the sketch is not an image, or the body neither a form in UTF-8 nor JSON",
    422: "a field is invalid; the detail names it",
    429: "the service is at capacity, or the key's rate limit is reached",
    500: "internal error",
    503: "no gallery is published, or a replica is starting or died",
    504: "no answer before the deadline",
}
_V1_STATUSES = (401, 403, 404, 429, 500, 503, 504)
_OF_GALLERY = f"{GALLERIES}/{{gallery}}"
_GALLERY = {
    "name": "gallery",
    "in": "path",
    "required": True,
    "description": f"the name of a gallery, as in {GALLERIES}; the routes below /v1 are those of `default`",
    "schema": {"type": "string"},
    "example": "shoes",
}


def set_openapi(app: FastAPI, limits: Limits) -> None:
    """Set the document of `/openapi.json`. The first request builds it, not the start of an ingress."""
    app.openapi = functools.cache(lambda: _document(app, limits))  # type: ignore[method-assign]


def _document(app: FastAPI, limits: Limits) -> Schema:
    document = get_openapi(title=app.title, version=app.version, description=_DESCRIPTION, routes=app.routes)
    document["components"] = {
        "schemas": SCHEMAS,
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    }
    for path, method, operation in _operations(limits):
        document["paths"][path][method] |= operation
        if path.startswith(V1) and path != GALLERIES:
            of_gallery = _of_gallery(document["paths"][path][method])
            document["paths"][_OF_GALLERY + path.removeprefix("/v1")] = {method: of_gallery}
    return document


def _of_gallery(operation: Schema) -> Schema:
    """The operation of a gallery in place of that of the default one."""
    parameters = [_GALLERY, *operation.get("parameters", ())]
    operation_id = f"{operation['operationId']}_of_gallery"
    return {**operation, "operationId": operation_id, "parameters": parameters}


def _operations(limits: Limits) -> list[tuple[str, str, Schema]]:
    image = {
        media_type: {"schema": {"type": "string", "format": "binary"}}
        for media_type in ("image/jpeg", "image/png")
    }
    ready, status = _json("Ready", EXAMPLE_READY), _json("Status", {"status": "alive"})
    galleries = _json("Galleries", EXAMPLE_GALLERIES)
    secured: Schema = {"security": [{"key": []}, {}]}  # without API keys, loopback requests need none
    query = {**secured, "requestBody": _bodies(limits)}

    def answers(content: Schema) -> Schema:
        return _responses(content, 400, 413, 415, 422, *_V1_STATUSES)

    return [
        ("/v1/search", "post", {**query, **answers(_json("SearchResult", EXAMPLE_RESULT))}),
        ("/v1/explain", "post", {**query, **answers(_json("Explanation", EXAMPLE_EXPLANATION))}),
        ("/v1/photos/{photo_id}", "get", {**secured, **_responses(image, 422, *_V1_STATUSES)}),
        ("/v1/info", "get", {**secured, **_responses(_json("Info"), *_V1_STATUSES)}),
        (GALLERIES, "get", {**secured, **_responses(galleries, 401, 403, 429, 500)}),
        ("/healthz", "get", _responses(status, 500)),
        ("/readyz", "get", _responses(ready, 429, 500, 503, 504)),
    ]


def _bodies(limits: Limits) -> Schema:
    """A search as JSON and as a form, derived from the fields of `SearchRequest`."""
    fields = _fields(limits)
    form = deepcopy(fields)
    del form["properties"]["strokes"]
    form["properties"]["sketch"] = {
        "type": "string",
        "format": "binary",
        "description": f"an image: {', '.join(QUERY_FORMATS)}",
    }
    examples = {name: {"value": value} for name, value in EXAMPLES.items()}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": fields, "examples": examples},
            "multipart/form-data": {"schema": form, "examples": {"text": examples["text"]}},
        },
    }


def _fields(limits: Limits) -> Schema:
    schema = TypeAdapter(SearchRequest).json_schema()
    properties = schema["properties"]
    strokes = {**TypeAdapter(Strokes).json_schema(), "minItems": 1, "maxItems": limits.strokes}
    base64 = {"type": "string", "contentEncoding": "base64"}
    properties["strokes"] = {"anyOf": [strokes, {"type": "null"}]}
    properties["sketch"] = {"anyOf": [base64, strokes, {"type": "null"}]}
    properties["k"]["maximum"] = limits.k
    # At least one. A schema cannot require that a text is not blank or that base64 holds an image.
    schema["anyOf"] = [{"required": [name]} for name in ("sketch", "strokes", "text", "photo_id", "like")]
    _set_steering(properties, limits, properties["sketch"])
    for name in ("text", "category", "photo_id"):
        properties[name] = {"anyOf": [{**TEXT, "maxLength": limits.characters}, {"type": "null"}]}
    return schema


def _set_steering(properties: Schema, limits: Limits, sketch: Schema) -> None:
    """The schemas of `without`, `like` and `unlike`. In a form, they are strings of JSON."""
    text = {**TEXT, "minLength": 1, "maxLength": limits.characters}
    negative = TypeAdapter(NegativeInput).json_schema()
    negative["properties"] |= {"text": {"anyOf": [text, {"type": "null"}]}, "sketch": sketch}
    negative["anyOf"] = [{"required": ["text"]}, {"required": ["sketch"]}]
    without = {"type": "array", "items": {"anyOf": [text, negative]}, "maxItems": limits.negatives}
    properties["without"] = {"anyOf": [without, TEXT], "description": "what a hit should not show"}
    marks = {"type": "array", "items": text, "maxItems": limits.marks}
    for name, meaning in (("like", "relevant"), ("unlike", "not relevant")):
        description = f"ids of photos marked as {meaning}; {limits.marks} in both fields together"
        properties[name] = {"anyOf": [marks, TEXT], "description": description}


def _responses(content: Schema, *problems: int) -> Schema:
    responses = {"200": {"description": "success", "content": content}}
    return {"responses": responses | {str(status): _problem(status) for status in sorted(problems)}}


def _json(name: str, example: Any = None) -> Schema:
    body = {"schema": {"$ref": f"#/components/schemas/{name}"}}
    return {"application/json": body if example is None else {**body, "example": example}}


def _problem(status: int) -> Schema:
    example = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": _STATUS_DESCRIPTIONS[status],
        "instance": "/v1/search",
        "request_id": "5f0d1e",
    }
    body = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
    response: Schema = {"description": _STATUS_DESCRIPTIONS[status], "content": {MEDIA_TYPE: body}}
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        seconds = {"description": "seconds until a retry", "schema": {"type": "integer"}}
        response["headers"] = {"Retry-After": seconds}
    return response
