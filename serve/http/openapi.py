"""What `/openapi.json` says of the interface: request bodies, answers, problems, with an example of each."""

from copy import deepcopy
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from serve.http.request import PICTURE_FORMATS, Fields, Strokes
from serve.problem import MEDIA_TYPE
from serve.settings import Limits

Schema = dict[str, Any]
_NUMBER, _TEXT = {"type": "number"}, {"type": "string"}
_ABOUT = (
    "Fine-grained image retrieval by a drawing, a few words, or both. Problems are RFC 9457 problem details;"
    " 429 and 503 say in Retry-After when to try again. Every answer has an X-Request-Id."
)
_WHY = {
    400: "nothing to search by",
    401: "no valid key",
    403: "no keys are set, and this is not from the machine itself",
    404: "no such photo",
    413: "too large, in bytes or in pixels",
    415: "not a picture, or not a body of a form or JSON",
    422: "a field is wrong; the detail names it",
    429: "all places are taken, or the key's rate is reached",
    500: "a fault of the server",
    503: "no gallery is published, or a part of the service is starting",
    504: "no answer before the deadline",
}
_GUARDED = (401, 403, 429, 500, 503, 504)
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
    "required": ["photo_id", "score", "category", "text", "uri"],
    "properties": {
        "photo_id": _TEXT,
        "score": _NUMBER,
        "category": _TEXT,
        "text": {"type": ["string", "null"], "description": "what the catalogue says of the photo"},
        "uri": _TEXT,
    },
}
_FOUND = {
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
        "refused": {"type": ["string", "null"], "description": "why what was asked for last is not served"},
    },
}
_EXAMPLE_READY = {"status": "ready", "checkpoint": "sha256:6f0c…", "gallery_version": 3, "refused": None}
_EXAMPLE_FOUND = {
    "hits": [
        {
            "photo_id": "chair/0042",
            "score": 0.81,
            "category": "chair",
            "text": "a chair of dark oak with a slatted back",
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
    "conditions": {"text": "a red strap", "where": [{"column": "category", "op": "ne", "value": "shoe"}]},
}


def describe(app: FastAPI, limits: Limits) -> None:
    """Let `app` answer `/openapi.json` with the whole interface."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, limits)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI, limits: Limits) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, description=_ABOUT, routes=app.routes)
    found["components"] = {
        "schemas": {
            "Problem": _PROBLEM,
            "Hit": _HIT,
            "Found": _FOUND,
            "Info": _INFO,
            "Status": _STATUS,
            "Ready": _READY,
        },
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    }
    for path, method, more in _operations(limits):
        found["paths"][path][method] |= more
    return found


def _operations(limits: Limits) -> list[tuple[str, str, Schema]]:
    picture = {
        kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/jpeg", "image/png")
    }
    ready, status = _json("Ready", _EXAMPLE_READY), _json("Status", {"status": "alive"})
    kept: Schema = {"security": [{"key": []}, {}]}  # without keys, this machine needs none
    return [
        (
            "/v1/search",
            "post",
            {
                **kept,
                "requestBody": _bodies(limits),
                **_answers(_json("Found", _EXAMPLE_FOUND), 400, 404, 413, 415, 422, *_GUARDED),
            },
        ),
        ("/v1/photos/{photo_id}", "get", {**kept, **_answers(picture, 404, *_GUARDED)}),
        ("/v1/info", "get", {**kept, **_answers(_json("Info"), *_GUARDED)}),
        ("/healthz", "get", _answers(status, 500)),
        ("/readyz", "get", _answers(ready, 429, 500, 503, 504)),
    ]


def _bodies(limits: Limits) -> Schema:
    """A search as JSON and as a form, from the fields that are read."""
    fields = _fields(limits)
    form = deepcopy(fields)
    del form["properties"]["strokes"]
    form["properties"]["sketch"] = {
        "type": "string",
        "format": "binary",
        "description": f"a picture: {', '.join(PICTURE_FORMATS)}",
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
    schema = TypeAdapter(Fields).json_schema()
    properties = schema["properties"]
    strokes = {**TypeAdapter(Strokes).json_schema(), "maxItems": limits.strokes}
    base64 = {"type": "string", "contentEncoding": "base64"}
    properties["strokes"] = {"anyOf": [strokes, {"type": "null"}]}
    properties["sketch"] = {"anyOf": [base64, strokes, {"type": "null"}]}
    properties["k"]["maximum"] = limits.k
    # At least one; that it may not be blank, nor base64 of no picture, a schema cannot say.
    schema["anyOf"] = [{"required": [name]} for name in ("sketch", "strokes", "text", "photo_id")]
    for name in ("text", "category", "photo_id"):
        properties[name] = {"anyOf": [{**_TEXT, "maxLength": limits.characters}, {"type": "null"}]}
    return schema


def _answers(content: Schema, *problems: int) -> Schema:
    answers = {"200": {"description": "answered", "content": content}}
    return {"responses": answers | {str(status): _problem(status) for status in sorted(problems)}}


def _json(name: str, example: Any = None) -> Schema:
    body = {"schema": {"$ref": f"#/components/schemas/{name}"}}
    return {"application/json": body if example is None else {**body, "example": example}}


def _problem(status: int) -> Schema:
    example = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": _WHY[status],
        "instance": "/v1/search",
        "request_id": "5f0d1e",
    }
    body = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
    answer: Schema = {"description": _WHY[status], "content": {MEDIA_TYPE: body}}
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        seconds = {"description": "seconds until it may be tried again", "schema": {"type": "integer"}}
        answer["headers"] = {"Retry-After": seconds}
    return answer
