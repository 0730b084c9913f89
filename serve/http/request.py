"""Request parsing: body → `Query`, within the limits. Sizes are checked before anything is parsed or decoded.

No step takes more than a few milliseconds of the event loop, whatever the body holds: large bodies are parsed
in a thread, and the bounds keep each call of a parser short, since it holds the interpreter's lock.
"""

import asyncio
import codecs
import json
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Request
from pydantic import ConfigDict, FailFast, Field, TypeAdapter
from pydantic.dataclasses import dataclass
from pydantic_core import from_json
from python_multipart.multipart import parse_options_header
from starlette.formparsers import MultiPartException, MultiPartParser

from serve.http.field_problems import (
    MAX_FIELD_BYTES,
    bad_field,
    check_max,
    check_query_text,
    read_json,
    too_large,
    validate,
)
from serve.http.sketch_input import Fraction, read_sketch
from serve.http.steering_input import read_marks, read_without
from serve.messages import Query
from serve.problem import Problem
from serve.settings import Limits
from stbir.gallery.filters import Condition

_FORM, _JSON = "multipart/form-data", "application/json"
_INLINE_BYTES = 2048  # a body up to this size is parsed on the event loop
_CHUNK_BYTES = 262_144  # of a form, between which the event loop runs; a millisecond
_MAX_POINT_BYTES = 64  # of a point in JSON: two numbers of 17 digits, brackets and spaces


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SearchRequest:
    """The fields of a search. In a form, the sketch is a file.

    `sketch`: an image in base64, or strokes. `strokes`: [[[x, y], …], …], x to the right and y down, each
    from 0 to 1 of the image size. `stroke_width`: in pixels of an image of 256 pixels. `photo_id`: a photo of
    the gallery in place of a sketch, to find similar photos. `where`: conditions on columns of the gallery;
    a hit meets all of them. `without`: what a hit should not show, texts or objects. `like`, `unlike`: ids of
    photos marked as relevant or not, which move the query and are no hits. `group`: near-duplicates form one
    hit. `min_match`: the least probability that a hit is the photo meant. In a form, lists are strings of
    JSON.
    """

    sketch: str | list[Any] | None = None
    strokes: list[Any] | None = None
    stroke_width: Annotated[int, Field(ge=1, le=32)] = 2
    text: str | None = None
    k: Annotated[int, Field(ge=1)] = 10
    sketch_weight: Fraction = 0.5
    category: str | None = None
    photo_id: str | None = None
    where: Any = ""
    without: Any = ()
    like: Any = ()
    unlike: Any = ()
    group: bool = False
    min_match: Fraction = 0.0


_REQUEST = TypeAdapter(SearchRequest)
_FIELDS = frozenset(SearchRequest.__dataclass_fields__)
_WHERE = TypeAdapter(Annotated[tuple[Condition, ...], FailFast()])


async def read_query(request: Request, limits: Limits) -> Query:
    """The query of a form or JSON body. Raises Problem for missing, oversized or invalid input."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in (_FORM, _JSON):
        detail = f"content-type: {media_type or 'none'} is not supported; send {_FORM} or {_JSON}"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
    body = await _read_body(request, limits.body_bytes)
    raw, upload = await _read_form(request, body) if media_type == _FORM else (body, None)
    if upload is None and len(body) <= _INLINE_BYTES:
        return _build_query(raw, upload, limits)
    return await asyncio.to_thread(_build_query, raw, upload, limits)


def _build_query(raw: bytes | dict[str, str], upload: bytes | None, limits: Limits) -> Query:
    """The query of a JSON body, or of the texts and the file of a form."""
    fields = _validate(_parse_json(raw, limits) if isinstance(raw, bytes) else raw)
    _check_limits(fields, limits)
    where = _read_where(fields.where, limits.conditions)
    sketch = read_sketch(_sketch_source(upload, fields), fields.stroke_width, limits)
    text = (fields.text or "").strip() or None
    photo_id, category = fields.photo_id or None, fields.category or None
    if sketch is not None and photo_id is not None:
        raise bad_field("photo_id", "replaces a sketch; send one of the two")
    like, unlike = read_marks(fields.like, fields.unlike, limits)
    query = Query(
        *(sketch, text, fields.k, fields.sketch_weight, category, photo_id, where),
        without=read_without(fields.without, fields.stroke_width, limits),
        like=like,
        unlike=unlike,
        group=fields.group,
        min_match=fields.min_match,
    )
    if query.is_empty:
        detail = "the query is empty; send sketch, text, both, photo_id, or like"
        raise Problem(HTTPStatus.BAD_REQUEST, detail)
    return query


def _sketch_source(upload: bytes | None, fields: SearchRequest) -> bytes | str | list[Any] | None:
    """The sketch as it was sent. A drawing without strokes is one too, so that it is refused, not ignored."""
    empty_drawing = fields.sketch if fields.strokes is None else fields.strokes
    return upload or fields.sketch or fields.strokes or empty_drawing


def _parse_json(body: bytes, limits: Limits) -> Any:
    """The JSON of a body. Its number of values, and its size without an image, are bounded beforehand."""
    marked = body.translate(bytes.maketrans(b",[{", b'"""'))
    check_max("body", marked.count(b'"'), 5 * limits.points + MAX_FIELD_BYTES, "values")
    # An image is one run of base64. Without one, a body has a drawing at most.
    max_bytes = limits.points * _MAX_POINT_BYTES + MAX_FIELD_BYTES
    if len(body) > max_bytes and len(body) - max(map(len, marked.split(b'"'))) > max_bytes:
        raise too_large("body: all but the image", f"{max_bytes} bytes")
    try:
        return from_json(body)
    except ValueError as error:
        raise bad_field("body", f"Invalid JSON: {error}") from error


def _read_where(raw: Any, max_conditions: int) -> tuple[Condition, ...]:
    if not isinstance(raw, str):  # `read_json` bounds a text
        num_characters = len(json.dumps(raw, ensure_ascii=False))
        check_max("where", num_characters, MAX_FIELD_BYTES, "characters")
    where = validate("where", _WHERE.validate_python, read_json("where", raw))
    check_max("where", len(where), max_conditions, "conditions")
    return where


async def _read_body(request: Request, max_bytes: int) -> bytes:
    content_length = request.headers.get("content-length", "")
    if content_length.isdecimal() and int(content_length[:18]) > max_bytes:
        raise too_large(f"body: {content_length} bytes", f"{max_bytes} bytes")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large("body", f"{max_bytes} bytes")
    return bytes(body)


async def _read_form(request: Request, body: bytes) -> tuple[dict[str, str], bytes | None]:
    """The texts of a form, and the image in its file `sketch`."""
    _check_charset(request.headers["content-type"])
    parser = MultiPartParser(
        request.headers, _stream(body), max_files=1, max_fields=16, max_part_size=MAX_FIELD_BYTES
    )
    parser.spool_max_size = len(body)  # in memory, where the body is already
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise bad_field("body", f"not a valid form ({error}); see /openapi.json") from error
    try:
        values: dict[str, Any] = dict(form)
        file = values.pop("sketch", None)
        texts = {name: _check_text(name, value) for name, value in values.items()}
        return texts, await _read_upload(file)
    finally:
        await form.close()


async def _stream(body: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), _CHUNK_BYTES):
        yield body[start : start + _CHUNK_BYTES]
        await asyncio.sleep(0)


def _check_charset(content_type: str) -> None:
    """Raises Problem 415 for another charset: a client chooses it, and Python has slow and unsafe ones."""
    charset = parse_options_header(content_type)[1].get(b"charset", b"utf-8").decode("latin-1")
    try:
        is_utf8 = codecs.lookup(charset).name in ("utf-8", "ascii")
    except LookupError:
        is_utf8 = False
    if not is_utf8:
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content-type: the charset must be UTF-8")


async def _read_upload(file: Any) -> bytes | None:
    """The bytes of a file; None if empty, as browsers send a file input without a choice."""
    if file and isinstance(file, str):
        raise bad_field("sketch", f"not a file; send it as a file of the form, or as {_JSON}")
    return await file.read() or None if file else None


def _check_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise bad_field(name, "is a file; send it as text (only sketch may be a file)")
    return value


def _validate(raw: Any) -> SearchRequest:
    if isinstance(raw, dict) and (unknown := raw.keys() - _FIELDS):
        raise bad_field(min(unknown)[:50], f"no such field; send some of {', '.join(sorted(_FIELDS))}")
    return validate("", _REQUEST.validate_python, raw)


def _check_limits(fields: SearchRequest, limits: Limits) -> None:
    if fields.k > limits.k:
        raise bad_field("k", f"exceeds the limit of {limits.k}; send less")
    check_query_text("text", fields.text or "", limits)
    for name in ("category", "photo_id"):
        check_max(name, len(getattr(fields, name) or ""), limits.characters, "characters")
    if fields.sketch and fields.strokes:
        raise bad_field("strokes", "conflicts with sketch; send one of the two")
