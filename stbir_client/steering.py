"""The steering of a search: what a hit should not show, photos marked as relevant or not, and groups."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stbir_client.errors import InputError
from stbir_client.filters import check_text
from stbir_client.sketch import Sketch, fraction, read_image, read_strokes


@dataclass(frozen=True)
class Negative:
    """What a hit should not show: a text, a sketch or both.

    `weight`, from 0 to 1: 0 has no effect; None leaves it to the endpoint.
    """

    text: str | None = None
    sketch: Sketch | None = None
    weight: float | None = None


def steering_fields(
    without: Sequence[str | Negative], like: Sequence[str], unlike: Sequence[str], group: bool
) -> dict[str, Any]:
    """The fields of a request that are set. Raises InputError, naming `without.N`, `like.N` or `unlike.N`."""
    marks = {"like": like, "unlike": unlike}
    fields: dict[str, Any] = {
        "without": [_negative(f"without.{n}", each) for n, each in enumerate(_list("without", without))],
        **{
            name: [_photo_id(f"{name}.{n}", each) for n, each in enumerate(_list(name, photo_ids))]
            for name, photo_ids in marks.items()
        },
        "group": bool(group),
    }
    return {name: value for name, value in fields.items() if value}


def _list(name: str, value: Sequence[Any]) -> Sequence[Any]:
    if isinstance(value, str):
        raise InputError(f"{name}: {value!r} is not a list; give [{value!r}]")
    return value


def _photo_id(path: str, value: Any) -> str:
    if not check_text(path, value):
        raise InputError(f"{path}: is empty; give the id of a photo")
    return str(value)


def _negative(path: str, negative: str | Negative) -> dict[str, Any]:
    if isinstance(negative, str):
        negative = Negative(negative)
    if not isinstance(negative, Negative):
        raise InputError(f"{path}: {type(negative).__name__} is neither a text nor a Negative")
    text = check_text(f"{path}.text", negative.text or "").strip()
    sketch = _sketch(path, negative.sketch)
    if not text and not sketch:
        raise InputError(f"{path}: neither text nor sketch; give one of them")
    weight = None if negative.weight is None else fraction(f"{path}.weight", negative.weight)
    fields = {"text": text or None, "sketch": sketch or None, "weight": weight}
    return {name: value for name, value in fields.items() if value is not None}


def _sketch(path: str, sketch: Sketch | None) -> Any:
    """Base64 of an image, or strokes; both empty without a sketch."""
    try:
        image = read_image(sketch)
        return read_strokes(sketch) if image is None else base64.b64encode(image).decode()
    except InputError as error:
        raise InputError(f"{path}.{error}") from error
