"""Checks of the fields of a request, and problems that name the invalid one."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from serve.problem import Problem
from serve.settings import Limits

T = TypeVar("T")

# Of everything in a request but the sketches: a thousand values of 16 characters fit.
MAX_FIELD_BYTES = 16_384


def check_max(name: str, count: int, limit: int, unit: str) -> None:
    """Raises Problem 422 if a field has more than `limit`."""
    if count > limit:
        raise bad_field(name, f"{count} {unit} exceed the limit of {limit}; send fewer")


def check_query_text(name: str, text: str, limits: Limits) -> None:
    """Raises Problem 422 for a text that is too long for the text encoder."""
    check_max(name, len(text), limits.characters, "characters")
    check_max(name, len(text.split()), limits.words, "words")


def read_json(name: str, raw: Any) -> Any:
    """The value of a field: as it is, or parsed if it is text, as in a form. Raises Problem 422."""
    if not isinstance(raw, str):
        return raw
    check_max(name, len(raw), MAX_FIELD_BYTES, "characters")
    try:
        return from_json(raw) if raw else ()
    except ValueError as error:
        raise bad_field(name, f"Invalid JSON: {error}") from error


def validate(name: str, validator: Callable[[Any], T], value: Any) -> T:
    """The validated value of a field, or with `name` "" of all. Raises Problem 422 for the first bad part."""
    try:
        return validator(value)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in (name, *detail["loc"]) if part != "") or "body"
        raise bad_field(field, detail["msg"]) from error


def too_large(size: str, limit: str) -> Problem:
    """413, for a `size` such as "body: 9 bytes"."""
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{size} exceeds {limit}; send less")


def bad_field(name: str, reason: str) -> Problem:
    """422: the field is invalid."""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name}: {reason}")
