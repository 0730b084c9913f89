"""The sketch of a request: an uploaded image, base64 or strokes → an encoded image with a checked header."""

import base64
import binascii
import io
import warnings
from http import HTTPStatus
from typing import Annotated, Any

from PIL import Image, UnidentifiedImageError
from pydantic import FailFast, Field, TypeAdapter

from serve.http.field_problems import bad_field, check_max, too_large, validate
from serve.problem import Problem
from serve.settings import Limits
from stbir.images import QUERY_FORMATS, encode_png, render_strokes

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
# FailFast: pydantic makes an error object for each wrong element, which takes 5 µs.
Stroke = Annotated[list[tuple[Fraction, Fraction]], FailFast()]
Strokes = Annotated[list[Stroke], FailFast()]
_STROKES = TypeAdapter(Strokes)
_PART_POINTS = 256  # of a long stroke; a millisecond to draw


def read_sketch(source: bytes | str | list[Any] | None, width: int, limits: Limits) -> bytes | None:
    """The sketch as an encoded image with a valid header; None without one.

    source: an image, an image in base64, or strokes, which are drawn `width` pixels thick.
    """
    if isinstance(source, list):
        return encode_png(render_strokes(_read_strokes(source, limits), width=width))
    image = _decode_base64(source) if isinstance(source, str) else source
    if not image:
        return None
    check_image(image, limits.sketch_pixels)
    return image


def _decode_base64(text: str) -> bytes:
    """The bytes of base64, with or without a browser's prefix `data:image/png;base64,`."""
    content = text.partition(",")[2] if text.startswith("data:") else text
    if text and not content:
        raise bad_field("sketch", "an empty image; send one, or leave the field out")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_field("sketch", f"not base64 ({error}); encode the image in base64") from error


def _read_strokes(raw: list[Any], limits: Limits) -> Strokes:
    strokes = [stroke for stroke in validate("strokes", _STROKES.validate_python, raw) if stroke]
    check_max("strokes", len(strokes), limits.strokes, "strokes")
    check_max("strokes", sum(map(len, strokes)), limits.points, "points")
    if not strokes:
        raise bad_field("sketch", "no stroke on it; draw one, or leave the field out")
    return [part for stroke in strokes for part in split_stroke(stroke)]


def split_stroke(stroke: Stroke) -> list[Stroke]:
    """The stroke in parts that draw the same image. Pillow holds the interpreter's lock while it draws one.

    Parts share two points, so that each inner point of the stroke, where a joint is drawn, is one of a part.
    """
    starts = range(0, max(1, len(stroke) - 2), _PART_POINTS - 2)
    return [stroke[start : start + _PART_POINTS] for start in starts]


def check_image(data: bytes, max_pixels: int) -> None:
    """Check an image by its header alone. Raises Problem 415 if it is none, 413 if it is too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=QUERY_FORMATS) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:
        raise too_large("sketch", f"{max_pixels} pixels") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        detail = f"sketch: not an image; send {', '.join(QUERY_FORMATS)}"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail) from error
    if width * height > max_pixels:
        raise too_large(f"sketch: {width} x {height}", f"{max_pixels} pixels")
