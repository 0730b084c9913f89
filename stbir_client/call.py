"""API calls: method, path and body. Invalid input raises InputError before anything is sent."""

import json
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stbir_client.errors import InputError
from stbir_client.filters import Condition, check_text, to_json

Strokes = Sequence[Sequence[Sequence[float]]]
Sketch = str | os.PathLike[str] | bytes | Strokes


@dataclass(frozen=True)
class Call:
    """`body`: the keyword arguments of an httpx request that make its body."""

    method: str
    path: str
    body: Mapping[str, Any] = field(default_factory=dict)


def info_call() -> Call:
    """`GET /v1/info`."""
    return Call("GET", "v1/info")


def thumbnail_call(photo_id: str) -> Call:
    """`GET /v1/photos/{photo_id}`; slashes in the id are escaped."""
    if not photo_id:
        raise InputError("photo_id: is empty; give the id of a photo")
    return Call("GET", f"v1/photos/{quote(check_text('photo_id', photo_id), safe='')}")


def search_call(
    sketch: Sketch | None,
    text: str | None,
    k: int,
    sketch_weight: float,
    category: str | None,
    photo_id: str | None = None,
    where: Sequence[Condition] = (),
) -> Call:
    """`POST /v1/search`: a form if the sketch is an image, else JSON. Raises InputError."""
    image, strokes = _image(sketch), _strokes(sketch)
    texts = {"text": (text or "").strip(), "category": category or "", "photo_id": photo_id or ""}
    fields: dict[str, Any] = {
        "k": _count(k),
        "sketch_weight": _fraction("sketch_weight", sketch_weight),
        **{name: check_text(name, value) for name, value in texts.items() if value},
    }
    has_sketch = image is not None or bool(strokes)
    if not has_sketch and not {"text", "photo_id"} & fields.keys():
        raise InputError("nothing to search by: give sketch, text, both, or photo_id")
    if has_sketch and "photo_id" in fields:
        raise InputError("photo_id: replaces the sketch; give only one of them")
    filters = to_json(where)
    if image is not None:
        form = {**fields, **({"where": json.dumps(filters)} if filters else {})}
        return Call("POST", "v1/search", {"data": form, "files": {"sketch": ("sketch", image)}})
    lists = {"sketch": strokes, "where": filters}
    fields |= {name: value for name, value in lists.items() if value}
    return Call("POST", "v1/search", {"json": fields})


def _image(sketch: Sketch | None) -> bytes | None:
    """The bytes of an image sketch, given as bytes or as a path; None for strokes."""
    if isinstance(sketch, bytes | bytearray | memoryview):
        image, name = bytes(sketch), "the image"
    elif isinstance(sketch, str | os.PathLike):
        image, name = _file(Path(sketch)), str(sketch)
    else:
        return None
    if not image:
        raise InputError(f"sketch: {name} is empty; give a PNG, JPEG or WebP")
    return image


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"sketch: {path} cannot be read ({reason})") from error


def _strokes(sketch: Sketch | None) -> list[list[tuple[float, float]]]:
    """The non-empty strokes of a drawing; an empty list without one. Raises InputError if none is drawn."""
    if sketch is None or isinstance(sketch, str | os.PathLike | bytes | bytearray | memoryview):
        return []
    try:
        strokes = [[_point(*point) for point in points] for points in sketch]
    except TypeError as error:
        raise InputError("sketch: give a path, bytes, or strokes [[[x, y], …], …]") from error
    if not any(strokes):
        raise InputError("sketch: no stroke on it; draw one, or give no sketch")
    return [stroke for stroke in strokes if stroke]


def _point(x: float, y: float) -> tuple[float, float]:
    return _fraction("sketch: x", x), _fraction("sketch: y", y)


def _fraction(name: str, value: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name}: {value!r} is not a number") from error
    if not 0 <= number <= 1:  # true for NaN as well
        raise InputError(f"{name}: {number} is not between 0 and 1")
    return number


def _count(k: int) -> int:
    try:
        count = operator.index(k)  # also accepts NumPy integers
    except TypeError as error:
        raise InputError(f"k: {k!r} is not an integer") from error
    if count < 1:
        raise InputError(f"k: {count} is below 1")
    return count
