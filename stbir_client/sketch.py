"""Sketches as callers have them: a path, the bytes of an image, or strokes. Raises InputError."""

import os
from collections.abc import Sequence
from pathlib import Path

from stbir_client.errors import InputError

Strokes = Sequence[Sequence[Sequence[float]]]
Sketch = str | os.PathLike[str] | bytes | Strokes


def read_image(sketch: Sketch | None) -> bytes | None:
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


def read_strokes(sketch: Sketch | None) -> list[list[tuple[float, float]]]:
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
    return fraction("sketch: x", x), fraction("sketch: y", y)


def fraction(name: str, value: float) -> float:
    """A number from 0 to 1. Raises InputError that names it."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name}: {value!r} is not a number") from error
    if not 0 <= number <= 1:  # true for NaN as well
        raise InputError(f"{name}: {number} is not between 0 and 1")
    return number
