"""A recipe as JSON, and back: how it travels in a checkpoint."""

from pydantic import TypeAdapter, ValidationError

from stbir.config import Recipe
from stbir.errors import InputError


def to_json(recipe: Recipe) -> str:
    """The recipe as JSON that `from_json` reads back to an equal recipe."""
    return TypeAdapter(Recipe).dump_json(recipe, indent=2).decode()


def from_json(text: str | bytes, name: str = "recipe") -> Recipe:
    """The recipe written by `to_json`. Raises InputError that names the first wrong field."""
    try:
        return TypeAdapter(Recipe).validate_json(text)
    except ValidationError as error:
        raise InputError(f"{name}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    got = "" if first["type"] == "value_error" else f" (got {first['input']!r})"
    return f"{where}: {first['msg']}{got}"
