"""Recipes as JSON: the form in which a checkpoint stores them."""

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from stbir.config.recipe import Recipe
from stbir.errors import InputError

# Field names of checkpoints written before 0.2, by the object they are in: old → new.
RENAMED_FIELDS: dict[str, dict[str, str]] = {
    "": {
        **{"batch": "batch_size", "chunk": "chunk_size", "shuffle": "shuffle_window"},
        **{"margins": "loss_constants", "optimiser": "optimizer"},
        **{"augment": "augmentation", "clusters": "num_clusters"},
    },
    "model": {"details": "appearance_dims"},
    "model.photo": {"finer": "multiscale"},
    "model.sketch": {"finer": "multiscale"},
    "stages": {
        **{"learns": "trainable", "hard": "hard_negatives", "group": "per_class"},
        **{"extra": "aux", "tied": "shared_encoder", "still": "frozen"},
    },
    "loss_constants": {"triplet": "triplet_margin", "arc": "arcface_margin", "arc_scale": "arcface_scale"},
    "optimizer": {
        **{"clip": "grad_clip", "warmup": "warmup_ratio"},
        **{"final": "final_lr_ratio", "trunk": "backbone_lr_ratio"},
    },
    "augmentation": {"photo": "photo_ratio", "words": "word_dropout"},
}


def to_json(recipe: Recipe) -> str:
    """The recipe as JSON that `from_json` reads back to an equal recipe."""
    return TypeAdapter(Recipe).dump_json(recipe, indent=2).decode()


def from_json(text: str | bytes, name: str = "recipe") -> Recipe:
    """The recipe written by `to_json`, also by an earlier version with other field names.

    Raises InputError that starts with `name` and names the first wrong field.
    """
    try:
        return TypeAdapter(Recipe).validate_python(upgraded(json.loads(text)))
    except ValueError as error:
        raise InputError(f"{name}: {_first_error(error)}") from error


def upgraded(node: Any, path: str = "") -> Any:
    """The JSON tree of a recipe with old field names replaced by the current ones."""
    if isinstance(node, list):
        return [upgraded(item, path) for item in node]
    if not isinstance(node, dict):
        return node
    names = RENAMED_FIELDS.get(path, {})
    current = {names.get(name, name): value for name, value in node.items()}
    return {name: upgraded(value, f"{path}.{name}".lstrip(".")) for name, value in current.items()}


def _first_error(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return f"not JSON: {error}"
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "unexpected_keyword_argument":  # ignored, it could change what the model computes
        return f"{field}: this version of stbir has no such field; install the version that wrote the recipe"
    got = "" if first["type"] == "value_error" else f" (got {first['input']!r})"
    return f"{field}: {first['msg']}{got}"
