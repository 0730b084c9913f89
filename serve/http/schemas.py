"""The schemas of the OpenAPI document, with an example of each body."""

from typing import Any

from stbir.embedding.explanation import GRID

Schema = dict[str, Any]
_NUMBER, TEXT = {"type": "number"}, {"type": "string"}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        **{name: TEXT for name in ("type", "title", "detail", "instance")},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "request_id": {"type": ["string", "null"]},
    },
}
_HIT = {
    "type": "object",
    "required": ["photo_id", "score", "category", "text", "count", "duplicates", "match", "uri"],
    "properties": {
        "photo_id": TEXT,
        "score": {**_NUMBER, "description": "cosine with the query, less the penalties of `without`"},
        "category": TEXT,
        "text": {"type": ["string", "null"], "description": "text of the photo in the catalogue"},
        "count": {"type": "integer", "description": "photos of the group, this one included"},
        "duplicates": {
            "type": "array",
            "items": TEXT,
            "description": "ids of up to 100 others of the group",
        },
        "match": {
            "type": ["number", "null"],
            "description": "probability that it is the photo meant; null if the checkpoint does not know it",
        },
        "uri": TEXT,
    },
}
_SEARCH_RESULT = {
    "type": "object",
    "required": ["hits", "gallery_version", "checkpoint", "timing_ms"],
    "properties": {
        "hits": {"type": "array", "items": {"$ref": "#/components/schemas/Hit"}},
        "gallery_version": {"type": "integer"},
        "checkpoint": TEXT,
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
        "queries": {"type": "array", "items": TEXT},
    },
}
_STATUS = {"type": "object", "required": ["status"], "properties": {"status": TEXT}}
_NUMBERS = {"type": "array", "items": _NUMBER, "minItems": GRID, "maxItems": GRID}
_EXPLANATION = {
    "type": "object",
    "required": ["score", "cells", "words"],
    "properties": {
        "score": {**_NUMBER, "description": "cosine of sketch and text with the photo"},
        "cells": {
            "type": ["array", "null"],
            "items": _NUMBERS,
            "minItems": GRID,
            "maxItems": GRID,
            "description": "what each cell of the sketch contributed, rows from the top; null without one",
        },
        "words": {
            "type": "array",
            "items": {"type": "array", "prefixItems": [TEXT, _NUMBER], "minItems": 2, "maxItems": 2},
            "description": "each word of the text, in order, and what it contributed",
        },
    },
}
_READY = {
    "type": "object",
    "required": ["status", "checkpoint", "gallery_version", "refused"],
    "properties": {
        "status": TEXT,
        "checkpoint": TEXT,
        "gallery_version": {"type": "integer"},
        "refused": {"type": ["string", "null"], "description": "why the newest release is not served"},
    },
}
EXAMPLE_READY = {"status": "ready", "checkpoint": "sha256:6f0c…", "gallery_version": 3, "refused": None}
EXAMPLE_RESULT = {
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
EXAMPLES = {
    "strokes": {"strokes": [[[0.2, 0.1], [0.2, 0.9], [0.8, 0.9]]], "text": "a chair of oak", "k": 5},
    "text": {"text": "a red strap", "category": "shoe"},
    "without": {"text": "a strap", "without": ["red", {"text": "a buckle", "weight": 0.3}]},
    "marks": {"text": "a strap", "like": ["shoe/0007"], "unlike": ["shoe/0008"]},
    "group": {"text": "a strap", "group": True},
    "min_match": {"text": "a red strap", "min_match": 0.2},
    "conditions": {"text": "a red strap", "where": [{"column": "category", "op": "ne", "value": "shoe"}]},
}
_GALLERY = {
    "type": "object",
    "required": ["name", "path", "version", "count"],
    "properties": {
        "name": TEXT,
        "path": {"type": "string", "description": "of its routes, as /v1/galleries/shoes/search"},
        "version": {"type": ["integer", "null"], "description": "null until it is published"},
        "count": {"type": ["integer", "null"], "description": "its photos"},
    },
}
_GALLERIES = {
    "type": "object",
    "required": ["galleries"],
    "properties": {"galleries": {"type": "array", "items": {"$ref": "#/components/schemas/Gallery"}}},
}
EXAMPLE_GALLERIES = {
    "galleries": [
        {"name": "default", "path": "/v1", "version": 3, "count": 12_000},
        {"name": "shoes", "path": "/v1/galleries/shoes", "version": 8, "count": 4_200},
    ]
}
EXAMPLE_EXPLANATION = {
    "score": 0.81,
    "cells": [[0.0] * GRID] * (GRID - 1) + [[0.0, 0.031, 0.012, 0.0, 0.0, -0.004, 0.027, 0.0]],
    "words": [["a", 0.001], ["red", 0.094], ["strap", 0.042]],
}
SCHEMAS = {
    "Problem": _PROBLEM,
    "Hit": _HIT,
    "SearchResult": _SEARCH_RESULT,
    "Explanation": _EXPLANATION,
    "Info": _INFO,
    "Gallery": _GALLERY,
    "Galleries": _GALLERIES,
    "Status": _STATUS,
    "Ready": _READY,
}
