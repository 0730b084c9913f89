"""The OpenAPI document: request bodies, responses and problems, with an example of each."""

import functools
from copy import deepcopy
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from serve.http.request import SearchRequest
from serve.http.sketch_input import Strokes
from serve.http.steering_input import NegativeInput
from serve.problem import MEDIA_TYPE
from serve.settings import Limits
from stbir.images import QUERY_FORMATS

Schema = dict[str, Any]
_NUMBER, _TEXT = {"type": "number"}, {"type": "string"}
_DESCRIPTION = (
    "Fine-grained image retrieval by a sketch, a text, or both. Errors are RFC 9457 problem details; 429 and"
    " 503 have a Retry-After header. Every response has an X-Request-Id header."
)
_STATUS_DESCRIPTIONS = {
    400: "the query is empty",
    401: "the API key is missing or wrong",
    403: "no API keys are configured, and the request is from another machine or a page of another site",
    404: "the gallery has no such photo",
    413: "the body or the sketch is too large",
    415: "the sketch is not an image, or the body neither a form in UTF-8 nor JSON",
    422: "a field is invalid; the detail names it",
    429: "the service is at capacity, or the key's rate limit is reached",
    500: "internal error",
    503: "no gallery is published, or a replica is starting or died",
    504: "no answer before the deadline",
}
_V1_STATUSES = (401, 403, 429, 500, 503, 504)
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        **{name: _TEXT for name in ("type", "title", "detail", "instance")},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "request_id": {"type": ["string", "null"]},
    },
}
_HIT = {
    "type": "object",
    "required": ["photo_id", "score", "category", "text", "count", "duplicates", "match", "uri"],
    "properties": {
        "photo_id": _TEXT,
        "score": {**_NUMBER, "description": "cosine with the query, less the penalties of `without`"},
        "category": _TEXT,
        "text": {"type": ["string", "null"], "description": "text of the photo in the catalogue"},
        "count": {"type": "integer", "description": "photos of the group, this one included"},
        "duplicates": {
            "type": "array",
            "items": _TEXT,
            "description": "ids of up to 100 others of the group",
        },
        "match": {
            "type": ["number", "null"],
            "description": "probability that it is the photo meant; null if the checkpoint does not know it",
        },
        "uri": _TEXT,
    },
}
_SEARCH_RESULT = {
    "type": "object",
    "required": ["hits", "gallery_version", "checkpoint", "timing_ms"],
    "properties": {
        "hits": {"type": "array", "items": {"$ref": "#/components/schemas/Hit"}},
        "gallery_version": {"type": "integer"},
        "checkpoint": _TEXT,
        "timing_ms": {"type": "object", "additionalProperties": _NUMBER},
    },
}
_INFO = {
    "type": "object",
    "required": ["model", "gallery", "limits", "queries"],
    "properties": {
        "model": {"type": "object"},
        "gallery": {"type": ["object", "null"]},
        "limits": {"type": "object"},
        "queries": {"type": "array", "items": _TEXT},
    },
}
_STATUS = {"type": "object", "required": ["status"], "properties": {"status": _TEXT}}
_READY = {
    "type": "object",
    "required": ["status", "checkpoint", "gallery_version", "refused"],
    "properties": {
        "status": _TEXT,
        "checkpoint": _TEXT,
        "gallery_version": {"type": "integer"},
        "refused": {"type": ["string", "null"], "description": "why the newest release is not served"},
    },
}
_EXAMPLE_READY = {"status": "ready", "checkpoint": "sha256:6f0c…", "gallery_version": 3, "refused": None}
_EXAMPLE_RESULT = {
    "hits": [
        {
            "photo_id": "chair/0042",
            "score": 0.81,
            "category": "chair",
            "text": "a chair of dark oak with a slatted back",
            "count": 2,
            "duplicates": ["chair/0042-small"],
            "match": 0.62,
            "uri": "/v1/photos/chair%2F0042",
        }
    ],
    "gallery_version": 3,
    "checkpoint": "sha256:6f0c…",
    "timing_ms": {"decode": 0.9, "encode_sketch": 9.1, "encode_text": 2.0, "search": 1.8, "total": 21.4},
}
_EXAMPLES = {
    "strokes": {"strokes": [[[0.2, 0.1], [0.2, 0.9], [0.8, 0.9]]], "text": "a chair of oak", "k": 5},
    "text": {"text": "a red strap", "category": "shoe"},
    "without": {"text": "a strap", "without": ["red", {"text": "a buckle", "weight": 0.3}]},
    "marks": {"text": "a strap", "like": ["shoe/0007"], "unlike": ["shoe/0008"]},
    "group": {"text": "a strap", "group": True},
    "min_match": {"text": "a red strap", "min_match": 0.2},
    "conditions": {"text": "a red strap", "where": [{"column": "category", "op": "ne", "value": "shoe"}]},
}


def set_openapi(app: FastAPI, limits: Limits) -> None:
    """Set the document of `/openapi.json`. The first request builds it, not the start of an ingress."""
    app.openapi = functools.cache(lambda: _document(app, limits))  # type: ignore[method-assign]


def _document(app: FastAPI, limits: Limits) -> Schema:
    document = get_openapi(title=app.title, version=app.version, description=_DESCRIPTION, routes=app.routes)
    document["components"] = {
        "schemas": {
            "Problem": _PROBLEM,
            "Hit": _HIT,
            "SearchResult": _SEARCH_RESULT,
            "Info": _INFO,
            "Status": _STATUS,
            "Ready": _READY,
        },
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    }
    for path, method, operation in _operations(limits):
        document["paths"][path][method] |= operation
    return document


def _operations(limits: Limits) -> list[tuple[str, str, Schema]]:
    image = {
        media_type: {"schema": {"type": "string", "format": "binary"}}
        for media_type in ("image/jpeg", "image/png")
    }
    ready, status = _json("Ready", _EXAMPLE_READY), _json("Status", {"status": "alive"})
    secured: Schema = {"security": [{"key": []}, {}]}  # without API keys, loopback requests need none
    return [
        (
            "/v1/search",
            "post",
            {
                **secured,
                "requestBody": _bodies(limits),
                **_responses(_json("SearchResult", _EXAMPLE_RESULT), 400, 404, 413, 415, 422, *_V1_STATUSES),
            },
        ),
        ("/v1/photos/{photo_id}", "get", {**secured, **_responses(image, 404, 422, *_V1_STATUSES)}),
        ("/v1/info", "get", {**secured, **_responses(_json("Info"), *_V1_STATUSES)}),
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
    examples = {name: {"value": value} for name, value in _EXAMPLES.items()}
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
        properties[name] = {"anyOf": [{**_TEXT, "maxLength": limits.characters}, {"type": "null"}]}
    return schema


def _set_steering(properties: Schema, limits: Limits, sketch: Schema) -> None:
    """The schemas of `without`, `like` and `unlike`. In a form, they are strings of JSON."""
    text = {**_TEXT, "minLength": 1, "maxLength": limits.characters}
    negative = TypeAdapter(NegativeInput).json_schema()
    negative["properties"] |= {"text": {"anyOf": [text, {"type": "null"}]}, "sketch": sketch}
    negative["anyOf"] = [{"required": ["text"]}, {"required": ["sketch"]}]
    without = {"type": "array", "items": {"anyOf": [text, negative]}, "maxItems": limits.negatives}
    properties["without"] = {"anyOf": [without, _TEXT], "description": "what a hit should not show"}
    marks = {"type": "array", "items": text, "maxItems": limits.marks}
    for name, meaning in (("like", "relevant"), ("unlike", "not relevant")):
        description = f"ids of photos marked as {meaning}; {limits.marks} in both fields together"
        properties[name] = {"anyOf": [marks, _TEXT], "description": description}


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
