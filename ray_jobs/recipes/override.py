"""`--set FIELD=VALUE`: replaces fields of a recipe."""

import json
from typing import Any

from stbir.config import Recipe
from stbir.config.recipe_json import MOVED_STAGE_FIELDS, RENAMED_FIELDS, from_json, to_json
from stbir.errors import InputError

# Stage names before 0.2: old → new.
RENAMED_STAGES = {"clip": "pretrain", "broad": "pretrain_multi", "weigh": "fusion"}
ALL = "*"  # of the items of a list
TEMPERATURE = "loss_constants.temperature"
CALIBRATE = "calibrate"  # measures the hubness correction, which was a field of a stage and of the model


def override(recipe: Recipe, assignments: list[str]) -> Recipe:
    """The recipe with fields replaced by `FIELD=VALUE` assignments, e.g. `stages.sketch.epochs=2`.

    Stages are addressed by name, pairs by number, all of either by `*`. A value is JSON if it parses as
    JSON, else a string. Raises InputError for an unknown, renamed or moved field, and for a wrong type or
    range.
    """
    tree: dict[str, Any] = json.loads(to_json(recipe))
    for assignment in assignments:
        field, equals, value = assignment.partition("=")
        if not equals:
            raise InputError(f"--set {assignment}: write it as FIELD=VALUE")
        field = field.strip()
        if (current := _current_field(field)) != field:
            raise InputError(f"--set {field}: {field!r} is now {current!r}")
        _assign(tree, field.split("."), _value(value), field)
    return from_json(json.dumps(tree), name="--set")


def _assign(node: Any, names: list[str], value: Any, field: str) -> None:
    name, *rest = names
    keys = _keys(node)
    for key in keys.values() if name == ALL and isinstance(node, list) else [_key(keys, name, field)]:
        if rest:
            _assign(node[key], rest, value, field)
        else:
            node[key] = value


def _keys(node: Any) -> dict[str, Any]:
    """Key or index of each child, by the name it is addressed by."""
    if isinstance(node, list):
        return {i["name"] if isinstance(i, dict) and "name" in i else str(n): n for n, i in enumerate(node)}
    return {name: name for name in node} if isinstance(node, dict) else {}


def _key(keys: dict[str, Any], name: str, field: str) -> Any:
    if name not in keys:
        known = ", ".join(keys) or "none, it is a single value"
        raise InputError(f"--set {field}: no field {name!r}; available: {known}")
    return keys[name]


def _current_field(field: str) -> str:
    """The path of a renamed or moved field; any other path itself."""
    names, path = list[str](), ""
    for name in field.split("."):
        if path == "stages" and len(names) == 1:  # the name of a stage, whose fields are those of `stages`
            names.append(RENAMED_STAGES.get(name, name))
            continue
        names.append(RENAMED_FIELDS.get(path, {}).get(name, name))
        path = f"{path}.{names[-1]}".lstrip(".")
    return _moved(names)


def _moved(names: list[str]) -> str:
    if (names[0], names[-1]) in (("stages", "hubness"), ("model", "hubness"), ("model", "hubness_dims")):
        return CALIBRATE
    if names[0] == "stages" and len(names) > 2:
        return ".".join((*names[:2], MOVED_STAGE_FIELDS.get(".".join(names[2:]), ".".join(names[2:]))))
    field = ".".join(names)
    if field == TEMPERATURE:
        return "stages.*.objective.pairs.*.temperature"
    return f"stages.*.{field}" if names[0] == "optimizer" else field


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
