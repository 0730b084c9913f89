"""`--set FIELD=VALUE`: a recipe with some fields replaced, or one line that says which is wrong."""

import json
from typing import Any

from stbir.config import Recipe
from stbir.config.recipe_json import from_json, to_json
from stbir.errors import InputError


def override(recipe: Recipe, assignments: list[str]) -> Recipe:
    """A recipe with fields replaced by `FIELD=VALUE` lines, e.g. `stages.sketch.epochs=2`.

    Stages go by name. Values are JSON where they parse as JSON, else strings. Raises InputError for an
    unknown field, and for a wrong type or range.
    """
    tree: dict[str, Any] = json.loads(to_json(recipe))
    for assignment in assignments:
        field, equals, value = assignment.partition("=")
        if not equals:
            raise InputError(f"--set {assignment}: write it as FIELD=VALUE")
        _assign(tree, field.strip(), _value(value))
    return from_json(json.dumps(tree), name="--set")


def _assign(tree: dict[str, Any], field: str, value: Any) -> None:
    node: Any = tree
    *parents, last = field.split(".")
    for name in parents:
        node = _child(node, name, field)
    _child(node, last, field)  # refuses a name that is not there
    node[last] = value


def _child(node: Any, name: str, field: str) -> Any:
    choices = {item["name"]: item for item in node} if isinstance(node, list) else node
    if not isinstance(choices, dict) or name not in choices:
        known = ", ".join(choices) if isinstance(choices, dict) else "nothing below it"
        raise InputError(f"--set {field}: no field {name!r}; there is {known}")
    return choices[name]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
