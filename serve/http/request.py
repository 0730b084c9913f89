"""Request parsing: body → `Query`, within the limits. Sizes are checked before anything is decoded."""

import asyncio
import base64
import binascii
import io
import warnings
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Request
from PIL import Image, UnidentifiedImageError
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from starlette.formparsers import MultiPartException, MultiPartParser

from serve.messages import Query
from serve.problem import Problem
from serve.settings import Limits
from stbir.gallery.filters import Condition
from stbir.images import encode_png, render_strokes

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
_FORM, _JSON = "multipart/form-data", "application/json"
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Strokes = list[list[tuple[Fraction, Fraction]]]
_STROKES = TypeAdapter(Strokes)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SearchRequest:
    """The fields of a search. In a form, the sketch is a file.

    `sketch`: an image in base64, or strokes. `strokes`: [[[x, y], …], …], x to the right and y down, each
    from 0 to 1 of the image size. `stroke_width`: in pixels of an image of 256 pixels. `photo_id`: a photo of
    the gallery in place of a sketch, to find similar photos. `where`: conditions on columns of the gallery;
    a hit meets all of them. In a form, `where` is a string of JSON.
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


_REQUEST = TypeAdapter(SearchRequest)
_WHERE = TypeAdapter(tuple[Condition, ...])


async def read_query(request: Request, limits: Limits) -> Query:
    """The query of a form or JSON body. Raises Problem for missing, oversized or invalid input."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in (_FORM, _JSON):
        detail = f"content-type: {media_type or 'none'} is not supported; send {_FORM} or {_JSON}"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
    body = await _read_body(request, limits.body_bytes)
    fields, upload = await _read_form(request, body) if media_type == _FORM else (_validate(body), None)
    _check_limits(fields, limits)
    where = _read_where(fields.where, limits.conditions)
    if not (upload or fields.sketch or fields.strokes):
        return _build_query(fields, where, None)
    # Decoding base64, rendering strokes and parsing headers take milliseconds: not on the event loop.
    return _build_query(fields, where, await asyncio.to_thread(_read_sketch, upload, fields, limits))


def _build_query(fields: SearchRequest, where: tuple[Condition, ...], sketch: bytes | None) -> Query:
    text = (fields.text or "").strip() or None
    photo_id = fields.photo_id or None
    if sketch is None and text is None and photo_id is None:
        raise Problem(HTTPStatus.BAD_REQUEST, "the query is empty; send sketch, text, both, or photo_id")
    if sketch is not None and photo_id is not None:
        raise _bad_field("photo_id", "replaces a sketch; send one of the two")
    category = fields.category or None
    return Query(sketch, text, fields.k, fields.sketch_weight, category, photo_id, where)


def _read_where(raw: Any, max_conditions: int) -> tuple[Condition, ...]:
    try:
        if isinstance(raw, str):
            where = _WHERE.validate_json(raw) if raw else ()
        else:
            where = _WHERE.validate_python(raw)
    except ValidationError as error:
        raise _validation_problem(error, "where") from error
    _check_max("where", len(where), max_conditions, "conditions")
    return where


async def _read_body(request: Request, max_bytes: int) -> bytes:
    content_length = request.headers.get("content-length", "")
    if content_length.isdigit() and int(content_length) > max_bytes:
        raise _too_large(f"body: {content_length} bytes", f"{max_bytes} bytes")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise _too_large("body", f"{max_bytes} bytes")
    return bytes(body)


async def _read_form(request: Request, body: bytes) -> tuple[SearchRequest, bytes | None]:
    """The fields of a form, and the image in its file `sketch`."""
    parser = MultiPartParser(
        request.headers, _stream(body), max_files=1, max_fields=16, max_part_size=len(body)
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise _bad_field("body", f"not a valid form ({error}); send {_FORM} with a boundary") from error
    try:
        values: dict[str, Any] = dict(form)
        file = values.pop("sketch", None)
        fields = _validate({name: _check_text(name, value) for name, value in values.items()})
        return fields, await _read_upload(file)
    finally:
        await form.close()


async def _stream(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


async def _read_upload(file: Any) -> bytes | None:
    """The bytes of a file; None if empty, as browsers send a file input without a choice."""
    if file and isinstance(file, str):
        raise _bad_field("sketch", f"not a file; send it as a file of the form, or as {_JSON}")
    return await file.read() or None if file else None


def _check_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _bad_field(name, "is a file; send it as text (only sketch may be a file)")
    return value


def _validate(raw: bytes | dict[str, str]) -> SearchRequest:
    try:
        return _REQUEST.validate_json(raw) if isinstance(raw, bytes) else _REQUEST.validate_python(raw)
    except ValidationError as error:
        raise _validation_problem(error) from error


def _check_limits(fields: SearchRequest, limits: Limits) -> None:
    if fields.k > limits.k:
        raise _bad_field("k", f"{fields.k} exceeds the limit of {limits.k}; send less")
    for name in ("text", "category", "photo_id"):
        _check_max(name, len(getattr(fields, name) or ""), limits.characters, "characters")
    _check_max("text", len((fields.text or "").split()), limits.words, "words")


def _read_sketch(upload: bytes | None, fields: SearchRequest, limits: Limits) -> bytes | None:
    """The sketch as an encoded image with a valid header."""
    sketch = upload or _json_sketch(fields, limits)
    if sketch is not None:
        check_image(sketch, limits.sketch_pixels)
    return sketch


def _json_sketch(fields: SearchRequest, limits: Limits) -> bytes | None:
    """The sketch of a JSON body as an encoded image."""
    if fields.sketch and fields.strokes:
        raise _bad_field("strokes", "conflicts with sketch; send one of the two")
    if isinstance(fields.sketch, str):
        return _decode_base64(fields.sketch) or None
    strokes = _read_strokes(fields.strokes or fields.sketch or [], limits)
    return encode_png(render_strokes(strokes, width=fields.stroke_width)) if strokes else None


def _decode_base64(text: str) -> bytes:
    """The bytes of base64, with or without a browser's prefix `data:image/png;base64,`."""
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad_field("sketch", f"not base64 ({error}); encode the image in base64") from error


def _read_strokes(raw: list[Any], limits: Limits) -> Strokes:
    try:
        strokes = [stroke for stroke in _STROKES.validate_python(raw) if stroke]
    except ValidationError as error:
        raise _validation_problem(error, "strokes") from error
    _check_max("strokes", len(strokes), limits.strokes, "strokes")
    _check_max("strokes", sum(map(len, strokes)), limits.points, "points")
    return strokes


def check_image(data: bytes, max_pixels: int) -> None:
    """Check an image by its header alone. Raises Problem 415 if it is none, 413 if it is too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:
        raise _too_large("sketch", f"{max_pixels} pixels") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        detail = f"sketch: not an image; send {', '.join(IMAGE_FORMATS)}"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail) from error
    if width * height > max_pixels:
        raise _too_large(f"sketch: {width} x {height}", f"{max_pixels} pixels")


def _check_max(name: str, count: int, limit: int, unit: str) -> None:
    if count > limit:
        raise _bad_field(name, f"{count} {unit} exceed the limit of {limit}; send fewer")


def _too_large(size: str, limit: str) -> Problem:
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{size} exceeds {limit}; send less")


def _bad_field(name: str, reason: str) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name}: {reason}")


def _validation_problem(error: ValidationError, prefix: str = "") -> Problem:
    """The first invalid field. `prefix` is the path of a part that was validated separately."""
    detail = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in (prefix, *detail["loc"]) if part != "") or "body"
    return _bad_field(field, detail["msg"])
