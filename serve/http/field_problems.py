"""Problems that name an invalid field of a request."""

from http import HTTPStatus

from pydantic import ValidationError

from serve.problem import Problem

# Of everything in a request but the sketches: a thousand values of 16 characters fit.
MAX_FIELD_BYTES = 16_384


def check_max(name: str, count: int, limit: int, unit: str) -> None:
    """Raises Problem 422 if a field has more than `limit`."""
    if count > limit:
        raise bad_field(name, f"{count} {unit} exceed the limit of {limit}; send fewer")


def too_large(size: str, limit: str) -> Problem:
    """413, for a `size` such as "body: 9 bytes"."""
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{size} exceeds {limit}; send less")


def bad_field(name: str, reason: str) -> Problem:
    """422: the field is invalid."""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name}: {reason}")


def validation_problem(error: ValidationError, prefix: str = "") -> Problem:
    """422 for the first invalid field. `prefix` is the path of a part that was validated separately."""
    detail = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in (prefix, *detail["loc"]) if part != "") or "body"
    return bad_field(field, detail["msg"])
