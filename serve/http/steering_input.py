"""The steering of a search request: `without`, `like` and `unlike`, as JSON or as text that holds JSON."""

import json
from typing import Annotated, Any

from pydantic import ConfigDict, FailFast, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from serve.http.field_problems import bad_field, check_max, check_query_text, read_json, validate
from serve.http.sketch_input import Fraction, read_sketch
from serve.messages import Negative
from serve.problem import Problem
from serve.settings import Limits
from stbir.config.choices import NEGATIVE_WEIGHT


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class NegativeInput:
    """What a hit should not show: a text, a sketch (base64 or strokes) or both. `weight`: 0 has no effect."""

    text: str | None = None
    sketch: str | list[Any] | None = None
    weight: Fraction = NEGATIVE_WEIGHT


PhotoId = Annotated[str, Field(min_length=1)]
_NEGATIVES = TypeAdapter(Annotated[tuple[NegativeInput, ...], FailFast()])
_PHOTO_IDS = TypeAdapter(Annotated[tuple[PhotoId, ...], FailFast()])


def read_without(raw: Any, stroke_width: int, limits: Limits) -> tuple[Negative, ...]:
    """The negatives of a list whose elements are texts or objects (`NegativeInput`). Raises Problem."""
    value = _checked_list("without", read_json("without", raw))
    check_max("without", len(value), limits.negatives, "negatives")
    items = [{"text": item} if isinstance(item, str) else item for item in value]
    inputs = validate("without", _NEGATIVES.validate_python, items)
    return tuple(_read_negative(f"without.{n}", each, stroke_width, limits) for n, each in enumerate(inputs))


def read_marks(like: Any, unlike: Any, limits: Limits) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The photo ids of both fields. Raises Problem 422, also for too many of both together."""
    marks = {"like": read_json("like", like), "unlike": read_json("unlike", unlike)}
    ids = {name: _checked_list(name, value) for name, value in marks.items()}
    check_max("like and unlike", sum(map(len, ids.values())), limits.marks, "photos")
    liked, unliked = (validate(name, _PHOTO_IDS.validate_python, value) for name, value in ids.items())
    for name, photo_ids in (("like", liked), ("unlike", unliked)):
        for n, photo_id in enumerate(photo_ids):
            check_max(f"{name}.{n}", len(photo_id), limits.characters, "characters")
    return liked, unliked


def _checked_list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise bad_field(name, f"not a list; send one, such as {json.dumps(['red'])}")
    return list(value)


def _read_negative(path: str, fields: NegativeInput, stroke_width: int, limits: Limits) -> Negative:
    text = (fields.text or "").strip() or None
    check_query_text(f"{path}.text", text or "", limits)
    try:
        sketch = read_sketch(fields.sketch, stroke_width, limits)
    except Problem as problem:
        raise Problem(problem.status, f"{path}.{problem.detail}") from problem
    if sketch is None and text is None:
        raise bad_field(path, "neither text nor sketch; send one of them")
    return Negative(sketch, text, fields.weight)
