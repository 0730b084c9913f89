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

# Stage fields before they were grouped: old → new, below `stages.NAME`.
MOVED_STAGE_FIELDS = {
    "trainable": "trainable.encoders",
    "shared_encoder": "trainable.shared",
    "frozen": "trainable.frozen",
    "pairs": "objective.pairs",
    "weights.category": "objective.category",
    "weights.nce": "objective.pairs.*.nce",
    "weights.triplet": "objective.pairs.*.triplet",
    "negatives": "objective.pairs.*.candidates",
    **{name: f"sampling.{name}" for name in ("sketches", "aux", "per_class", "hard_negatives")},
    "lr": "optimizer.lr",
}


def to_json(recipe: Recipe) -> str:
    """The recipe as JSON that `from_json` reads back to an equal recipe."""
    return TypeAdapter(Recipe).dump_json(recipe, indent=2).decode()


def from_json(text: str | bytes, name: str = "recipe") -> Recipe:
    """The recipe written by `to_json`, also by an earlier version with other field names.

    Raises InputError that starts with `name` and names the first wrong field.
    """
    try:
        return TypeAdapter(Recipe).validate_python(_current(json.loads(text)))
    except ValueError as error:
        raise InputError(f"{name}: {_first_error(error)}") from error
    except (AttributeError, KeyError, TypeError) as error:  # in the conversion of an old recipe
        raise InputError(f"{name}: not the recipe of any version of stbir ({error!r})") from error


def _current(recipe: Any) -> Any:
    """The JSON tree of a recipe of any version in its current form."""
    return _with_calibration(_with_groups(_with_current_names(recipe)))


def _with_calibration(recipe: Any) -> Any:
    """The JSON tree of a recipe in which hubness was measured before a stage, not after the last."""
    if not isinstance(recipe, dict):
        return recipe
    measured = [stage.pop("hubness") for stage in recipe.get("stages", ()) if "hubness" in stage]
    return recipe | {"calibrate": any(measured)} if measured else recipe


def _with_current_names(node: Any, path: str = "") -> Any:
    """The JSON tree of a recipe with the field names of 0.1 replaced by the current ones."""
    if isinstance(node, list):
        return [_with_current_names(item, path) for item in node]
    if not isinstance(node, dict):
        return node
    names = RENAMED_FIELDS.get(path, {})
    current = {names.get(name, name): value for name, value in node.items()}
    return {name: _with_current_names(value, f"{path}.{name}".lstrip(".")) for name, value in current.items()}


def _with_groups(recipe: Any) -> Any:
    """The JSON tree of a recipe whose stages had single fields and shared the recipe's optimizer."""
    if not (isinstance(recipe, dict) and "optimizer" in recipe):
        return recipe
    optimizer, constants = recipe.pop("optimizer"), recipe["loss_constants"]
    temperature = constants.pop("temperature")
    stages = [_grouped_stage(stage, optimizer, temperature) for stage in recipe["stages"]]
    return recipe | {"stages": stages}


def _grouped_stage(stage: dict[str, Any], optimizer: dict[str, Any], temperature: float) -> dict[str, Any]:
    """The stage with groups. Fields that it does not know remain, and are refused later."""
    weights, parts, noise, lr = (stage.pop(name) for name in ("weights", "trainable", "noise", "lr"))
    kind = stage.pop("negatives")
    terms = {name: weights.pop(name) for name in ("nce", "triplet")}
    constant = {"temperature": temperature, "candidates": "hard" if kind == "stored" else kind}
    pairs = [
        constant
        | {name: weight * pair["weight"] for name, weight in terms.items()}
        | _without(pair, "weight")
        for pair in stage.pop("pairs")
    ]
    if noise and noise["kind"] == "drawing":
        noise |= {"kind": "query", "modalities": ["sketch"]}
    trainable = {"encoders": [part for part in parts if part != "gate"], "gate": "gate" in parts}
    sampling = {name: stage.pop(name) for name in ("sketches", "aux", "per_class", "hard_negatives")}
    return {
        "trainable": trainable | {"shared": stage.pop("shared_encoder"), "frozen": stage.pop("frozen")},
        "objective": {"pairs": pairs, **weights},
        "sampling": sampling,
        "noise": noise,
        "optimizer": optimizer if lr is None else optimizer | {"lr": lr},
        **stage,
    }


def _without(node: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != name}


def _first_error(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return f"not JSON: {error}"
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "unexpected_keyword_argument":  # ignored, it could change what the model computes
        return f"{field}: this version of stbir has no such field; install the version that wrote the recipe"
    got = "" if first["type"] == "value_error" else f" (got {first['input']!r})"
    return f"{field}: {first['msg']}{got}"
