"""`--set FIELD=VALUE`: replaces fields of a recipe."""

import json
from typing import Any

from stbir.config import Recipe
from stbir.config.recipe_json import RENAMED_FIELDS, from_json, to_json
from stbir.errors import InputError

# Stage names before 0.2: old → new.
RENAMED_STAGES = {"clip": "pretrain", "broad": "pretrain_multi", "weigh": "fusion"}


def override(recipe: Recipe, assignments: list[str]) -> Recipe:
    """The recipe with fields replaced by `FIELD=VALUE` assignments, e.g. `stages.sketch.epochs=2`.

    Stages are addressed by name. A value is JSON if it parses as JSON, else a string. Raises InputError for
    an unknown or renamed field, and for a wrong type or range.
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
    _child(node, last, field)  # refuses an unknown name
    node[last] = value


def _child(node: Any, name: str, field: str) -> Any:
    choices = {item["name"]: item for item in node} if isinstance(node, list) else node
    if not isinstance(choices, dict) or name not in choices:
        known = ", ".join(choices) if isinstance(choices, dict) else "none, it is a single value"
        if current := _current_name(name, node):
            raise InputError(f"--set {field}: {name!r} is now {current!r}")
        raise InputError(f"--set {field}: no field {name!r}; available: {known}")
    return choices[name]


def _current_name(name: str, node: Any) -> str | None:
    """The current name of a renamed stage, or of a renamed field that the node has."""
    if isinstance(node, list):
        return RENAMED_STAGES.get(name)
    fields = {old: new for names in RENAMED_FIELDS.values() for old, new in names.items()}
    return fields.get(name) if isinstance(node, dict) and fields.get(name) in node else None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
