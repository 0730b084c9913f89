"""From the bytes of a request to a `Query`, within bounds: nothing is decoded before its size is known."""

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
from pydantic.dataclasses import dataclass as checked
from starlette.formparsers import MultiPartException, MultiPartParser

from serve.messages import Query
from serve.problem import Problem
from serve.settings import Limits
from stbir.gallery.filters import Condition
from stbir.images import encode_png, render_strokes

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP")
_FORM, _JSON = "multipart/form-data", "application/json"
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Strokes = list[list[tuple[Share, Share]]]
_STROKES = TypeAdapter(Strokes)


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Fields:
    """The fields of a search. Of a form, the sketch is a file and comes beside them.

    `sketch`: base64 of a picture, or strokes, which may stand in `strokes` as well. Strokes are
    [[[x, y], …], …] in shares of the picture, x right, y down, each from 0 to 1; `stroke_width` is in
    pixels of a picture of 256. `photo_id`: instead of a sketch, a photo of the gallery that the hits should
    be like. `where`: conditions on columns of the gallery, all to be met; in a form, the same as JSON.
    """

    sketch: str | list[Any] | None = None
    strokes: list[Any] | None = None
    stroke_width: Annotated[int, Field(ge=1, le=32)] = 2
    text: str | None = None
    k: Annotated[int, Field(ge=1)] = 10
    sketch_weight: Share = 0.5
    category: str | None = None
    photo_id: str | None = None
    where: Any = ""


_FIELDS = TypeAdapter(Fields)
_WHERE = TypeAdapter(tuple[Condition, ...])


async def read_query(request: Request, limits: Limits) -> Query:
    """The query in a form or in JSON. Raises Problem for what is missing, too large or wrong."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (_FORM, _JSON):
        detail = f"content-type: {kind or 'none'} cannot be read; send {_FORM} or {_JSON}"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
    body = await _body(request, limits.body_bytes)
    fields, upload = await _form(request, body) if kind == _FORM else (_checked(body), None)
    _bounded(fields, limits)
    where = _where(fields.where, limits.conditions)
    if not (upload or fields.sketch or fields.strokes):
        return _query(fields, where, None)
    # Decoding base64, drawing and parsing headers take milliseconds: not on the event loop.
    return _query(fields, where, await asyncio.to_thread(_picture, upload, fields, limits))


def _query(fields: Fields, where: tuple[Condition, ...], sketch: bytes | None) -> Query:
    text = (fields.text or "").strip() or None
    photo_id = fields.photo_id or None
    if sketch is None and text is None and photo_id is None:
        raise Problem(HTTPStatus.BAD_REQUEST, "nothing to search by: send sketch, text, both, or photo_id")
    if sketch is not None and photo_id is not None:
        raise _bad_field("photo_id", "stands in place of a sketch; send either")
    category = fields.category or None
    return Query(sketch, text, fields.k, fields.sketch_weight, category, photo_id, where)


def _where(raw: Any, most: int) -> tuple[Condition, ...]:
    try:
        if isinstance(raw, str):
            where = _WHERE.validate_json(raw) if raw else ()
        else:
            where = _WHERE.validate_python(raw)
    except ValidationError as error:
        raise _invalid(error, "where") from error
    if len(where) > most:
        raise _bad_field("where", f"{len(where)} conditions are more than {most}; ask by fewer")
    return where


async def _body(request: Request, most: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise _too_large(f"body: {declared} bytes", f"{most} bytes")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise _too_large("body", f"{most} bytes")
    return bytes(body)


async def _form(request: Request, body: bytes) -> tuple[Fields, bytes | None]:
    """The fields of a form, and the picture sent as its file `sketch`."""
    parser = MultiPartParser(
        request.headers, _once(body), max_files=1, max_fields=16, max_part_size=len(body)
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise _bad_field("body", f"not a readable form ({error}); send {_FORM} with a boundary") from error
    try:
        values: dict[str, Any] = dict(form)
        file = values.pop("sketch", None)
        fields = _checked({name: _text(name, value) for name, value in values.items()})
        return fields, await _upload(file)
    finally:
        await form.close()


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


async def _upload(file: Any) -> bytes | None:
    """The bytes of a file; None where it is empty, as a browser sends one that was not chosen."""
    if file and isinstance(file, str):
        raise _bad_field("sketch", f"send it as a file of the form, or as {_JSON}")
    return await file.read() or None if file else None


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _bad_field(name, "is a file; only sketch may be one")
    return value


def _checked(raw: bytes | dict[str, str]) -> Fields:
    try:
        return _FIELDS.validate_json(raw) if isinstance(raw, bytes) else _FIELDS.validate_python(raw)
    except ValidationError as error:
        raise _invalid(error) from error


def _bounded(fields: Fields, limits: Limits) -> None:
    """The bounds that are settings."""
    if fields.k > limits.k:
        raise _bad_field("k", f"{fields.k} is above {limits.k}")
    for name in ("text", "category", "photo_id"):
        if len(getattr(fields, name) or "") > limits.characters:
            raise _bad_field(name, f"more than {limits.characters} characters; shorten it")
    words = len((fields.text or "").split())
    if words > limits.words:
        raise _bad_field("text", f"{words} words are more than {limits.words}; shorten it")


def _picture(upload: bytes | None, fields: Fields, limits: Limits) -> bytes | None:
    """The sketch as an encoded picture whose header has been checked."""
    sketch = upload or _drawn(fields, limits)
    if sketch is not None:
        check_picture(sketch, limits.sketch_pixels)
    return sketch


def _drawn(fields: Fields, limits: Limits) -> bytes | None:
    """The sketch of a JSON body as an encoded picture."""
    if fields.sketch and fields.strokes:
        raise _bad_field("strokes", "send either sketch or strokes")
    if isinstance(fields.sketch, str):
        return _decoded(fields.sketch) or None
    strokes = _strokes(fields.strokes or fields.sketch or [], limits)
    return encode_png(render_strokes(strokes, width=fields.stroke_width)) if strokes else None


def _decoded(text: str) -> bytes:
    """base64, with or without the `data:image/png;base64,` of a browser."""
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad_field("sketch", f"not base64 ({error})") from error


def _strokes(raw: list[Any], limits: Limits) -> Strokes:
    try:
        strokes = [stroke for stroke in _STROKES.validate_python(raw) if stroke]
    except ValidationError as error:
        raise _invalid(error, "strokes") from error
    if len(strokes) > limits.strokes:
        raise _bad_field("strokes", f"{len(strokes)} are more than {limits.strokes}")
    points = sum(map(len, strokes))
    if points > limits.points:
        raise _bad_field("strokes", f"{points} points are more than {limits.points}")
    return strokes


def check_picture(data: bytes, most_pixels: int) -> None:
    """Read the header alone. Raises Problem 415 for what is no picture, 413 for one too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=PICTURE_FORMATS) as picture:
                width, height = picture.size
    except Image.DecompressionBombError as error:
        raise _too_large("sketch", f"{most_pixels} pixels") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        detail = f"sketch: not a picture; send {', '.join(PICTURE_FORMATS)}"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail) from error
    if width * height > most_pixels:
        raise _too_large(f"sketch: {width} x {height}", f"{most_pixels} pixels")


def _too_large(what: str, most: str) -> Problem:
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{what} exceeds {most}; send less")


def _bad_field(name: str, reason: str) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name}: {reason}")


def _invalid(error: ValidationError, field: str = "") -> Problem:
    """The first wrong field; of a part checked alone, `field` is where it stands in the body."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in (field, *first["loc"]) if part != "") or "body"
    return _bad_field(where, first["msg"])
