"""API calls: method, path and body. Invalid input raises InputError before anything is sent."""

import base64
import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from stbir_client.errors import InputError
from stbir_client.filters import Condition, check_text, to_json
from stbir_client.sketch import Sketch, fraction, read_image, read_strokes
from stbir_client.steering import Negative, steering_fields


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
    without: Sequence[str | Negative] = (),
    like: Sequence[str] = (),
    unlike: Sequence[str] = (),
    group: bool = False,
    min_match: float = 0.0,
) -> Call:
    """`POST /v1/search`: a form if the sketch is an image, else JSON. Raises InputError."""
    image, strokes = read_image(sketch), read_strokes(sketch)
    texts = {"text": (text or "").strip(), "category": category or "", "photo_id": photo_id or ""}
    fields: dict[str, Any] = {
        "k": _count(k),
        "sketch_weight": fraction("sketch_weight", sketch_weight),
        **{name: check_text(name, value) for name, value in texts.items() if value},
    }
    steering = steering_fields(without, like, unlike, group)
    has_sketch = image is not None or bool(strokes)
    if not has_sketch and not {"text", "photo_id", "like"} & (fields.keys() | steering.keys()):
        raise InputError("nothing to search by: give sketch, text, both, photo_id, or like")
    if has_sketch and "photo_id" in fields:
        raise InputError("photo_id: replaces the sketch; give only one of them")
    if min_match:
        fields["min_match"] = fraction("min_match", min_match)
    lists = {"where": to_json(where), **steering}
    return _search(fields, image, strokes, {name: value for name, value in lists.items() if value})


def explain_call(photo_id: str, sketch: Sketch | None, text: str | None, sketch_weight: float) -> Call:
    """`POST /v1/explain?hit=…`, with the body of a search. Raises InputError."""
    if not check_text("photo_id", photo_id):
        raise InputError("photo_id: is empty; give the id of a hit")
    call = search_call(sketch, text, 1, sketch_weight, None)
    return replace(call, path=f"v1/explain?hit={quote(photo_id, safe='')}")


def _search(fields: dict[str, Any], image: bytes | None, strokes: Any, lists: dict[str, Any]) -> Call:
    if image is not None and not any("sketch" in negative for negative in lists.get("without", ())):
        texts = {name: json.dumps(value) for name, value in lists.items()}
        return Call("POST", "v1/search", {"data": fields | texts, "files": {"sketch": ("sketch", image)}})
    # A field of a form is too short for the sketch of a negative.
    sketch = strokes if image is None else base64.b64encode(image).decode()
    return Call("POST", "v1/search", {"json": fields | ({"sketch": sketch} if sketch else {}) | lists})


def _count(k: int) -> int:
    try:
        count = operator.index(k)  # also accepts NumPy integers
    except TypeError as error:
        raise InputError(f"k: {k!r} is not an integer") from error
    if count < 1:
        raise InputError(f"k: {count} is below 1")
    return count
