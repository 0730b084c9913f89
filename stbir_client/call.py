"""What is asked: a method, a path and a body. What cannot be asked is refused before it is sent."""

import json
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stbir_client.condition import Condition, as_json
from stbir_client.errors import InputError

Strokes = Sequence[Sequence[Sequence[float]]]
Sketch = str | os.PathLike[str] | bytes | Strokes


@dataclass(frozen=True)
class Call:
    """`body`: the keyword arguments of an httpx request that make its body."""

    method: str
    path: str
    body: Mapping[str, Any] = field(default_factory=dict)


def info_call() -> Call:
    """What an endpoint serves."""
    return Call("GET", "v1/info")


def thumbnail_call(photo_id: str) -> Call:
    """The thumbnail of a photo; ids may hold slashes."""
    if not photo_id:
        raise InputError("photo_id: is empty")
    return Call("GET", f"v1/photos/{quote(_text('photo_id', photo_id), safe='')}")


def search_call(
    sketch: Sketch | None,
    text: str | None,
    k: int,
    sketch_weight: float,
    category: str | None,
    photo_id: str | None = None,
    where: Sequence[Condition] = (),
) -> Call:
    """A search: a form where the sketch is a picture, else JSON. Raises InputError for what cannot be one."""
    picture, strokes = _picture(sketch), _strokes(sketch)
    words = {"text": (text or "").strip(), "category": category or "", "photo_id": photo_id or ""}
    fields: dict[str, Any] = {
        "k": _count(k),
        "sketch_weight": _share("sketch_weight", sketch_weight),
        **{name: _text(name, value) for name, value in words.items() if value},
    }
    drawn = picture is not None or bool(strokes)
    if not drawn and not {"text", "photo_id"} & fields.keys():
        raise InputError("nothing to search by: give sketch, text, both, or photo_id")
    if drawn and "photo_id" in fields:
        raise InputError("photo_id: stands in place of a sketch; give either")
    met = as_json(where)
    if picture is not None:
        form = {**fields, **({"where": json.dumps(met)} if met else {})}
        return Call("POST", "v1/search", {"data": form, "files": {"sketch": ("sketch", picture)}})
    more = {"sketch": strokes, "where": met}
    fields |= {name: value for name, value in more.items() if value}
    return Call("POST", "v1/search", {"json": fields})


def _picture(sketch: Sketch | None) -> bytes | None:
    """The bytes of a sketch that is a picture or the path of one."""
    if isinstance(sketch, bytes | bytearray | memoryview):
        picture, name = bytes(sketch), "no bytes"
    elif isinstance(sketch, str | os.PathLike):
        picture, name = _file(Path(sketch)), f"{sketch} is empty"
    else:
        return None
    if not picture:
        raise InputError(f"sketch: {name}; give a PNG, JPEG or WebP")
    return picture


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"sketch: {path} cannot be read ({reason})") from error


def _strokes(sketch: Sketch | None) -> list[list[tuple[float, float]]]:
    """The strokes of a sketch that is a drawing, empty ones left out."""
    if sketch is None or isinstance(sketch, str | os.PathLike | bytes | bytearray | memoryview):
        return []
    try:
        return [stroke for stroke in ([_point(*point) for point in points] for points in sketch) if stroke]
    except TypeError as error:
        raise InputError("sketch: give a path, bytes, or strokes [[[x, y], …], …]") from error


def _point(x: float, y: float) -> tuple[float, float]:
    return _share("sketch: x", x), _share("sketch: y", y)


def _share(name: str, value: float) -> float:
    number = _number(name, value)
    if not 0 <= number <= 1:  # of NaN too
        raise InputError(f"{name}: {number} is not between 0 and 1")
    return number


def _number(name: str, value: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name}: {value!r} is no number") from error


def _count(k: int) -> int:
    try:
        count = operator.index(k)  # an integer of numpy too
    except TypeError as error:
        raise InputError(f"k: {k!r} is no whole number") from error
    if count < 1:
        raise InputError(f"k: {count} is below 1")
    return count


def _text(name: str, value: str) -> str:
    """A shell hands over bytes that are not UTF-8 as lone surrogates, which no request can carry."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name}: has characters that are not Unicode text") from error
    return value
