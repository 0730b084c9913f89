"""Recipes: functions that return one frozen `Recipe`, every choice of a run in one place.

A variant calls its parent and replaces a field. What trains a recipe belongs to `ray_jobs.training`.
"""

from collections.abc import Callable
from dataclasses import replace

from ray_jobs.recipes.ablations import ABLATIONS
from ray_jobs.recipes.chairs import (
    chairs_cpu,
    chairs_cpu_fast,
    chairs_cpu_reference,
    chairs_cpu_reference_fast,
)
from ray_jobs.recipes.finetune import finetune, finetune_text, multilingual
from ray_jobs.recipes.published import stbir_c, stbir_d, stbir_s
from ray_jobs.recipes.reference import reference
from ray_jobs.recipes.shared import shared_encoder, shared_encoder_clip, shared_encoder_resnet50
from ray_jobs.recipes.small import demo, smoke
from stbir.config import Recipe
from stbir.errors import InputError

RECIPES: dict[str, Callable[[], Recipe]] = {
    "smoke": smoke,
    "demo": demo,
    "finetune": finetune,
    "finetune_text": finetune_text,
    "multilingual": multilingual,
    "chairs_cpu": chairs_cpu,
    "chairs_cpu_fast": chairs_cpu_fast,
    "chairs_cpu_reference": chairs_cpu_reference,
    "chairs_cpu_reference_fast": chairs_cpu_reference_fast,
    "reference": reference,
    "shared_encoder": shared_encoder,
    "shared_encoder_resnet50": shared_encoder_resnet50,
    "shared_encoder_clip": shared_encoder_clip,
    "stbir_s": stbir_s,
    "stbir_c": stbir_c,
    "stbir_d": stbir_d,
}
# Names of version 0.1: old → new. The longest is looked up first.
RETIRED = {
    "ours_small": "chairs_cpu",
    "ours_brief": "chairs_cpu_fast",
    "paper_small": "chairs_cpu_reference",
    "paper_brief": "chairs_cpu_reference_fast",
    "paper": "reference",
    "all_at_once": "joint_only",
}
REMOVED = {"stbir_c_small": "chairs_cpu"}  # another recipe, not a new name (docs/decisions/0018)


def recipe_names() -> list[str]:
    """Every recipe: the parents, and each ablation of a module that the parent has."""
    parents = [parent() for parent in RECIPES.values()]
    variants = [
        ablate(parent) for parent in parents for ablate in ABLATIONS.values() if _applies(parent, ablate)
    ]
    return [each.name for each in (*parents, *variants)]


def is_finetuning(name: str) -> bool:
    """Whether a recipe, or the parent of an ablation, continues the model of `--init-from`."""
    return name.split("_")[0] == "finetune"


def recipe_help() -> str:
    """The choices in one line."""
    return f"{', '.join(RECIPES)}; each also with the suffix _{', _'.join(ABLATIONS)}"


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises InputError for an unknown or retired name, and for an ablation of a module that the recipe lacks.
    """
    if name in RECIPES:
        return RECIPES[name]()
    for parent, build in RECIPES.items():
        ablate = ABLATIONS.get(name.removeprefix(f"{parent}_"))
        if name.startswith(f"{parent}_") and ablate:
            if not _applies(build(), ablate):
                raise InputError(
                    f"--recipe: {name!r} equals {parent!r}, which lacks that module; use {parent}"
                )
            return ablate(build())
    raise InputError(f"--recipe: {_suggestion(name)}")


def _suggestion(name: str) -> str:
    for removed, other in REMOVED.items():
        if name == removed or name.startswith(f"{removed}_"):
            return f"{removed!r} was removed; use {other}, whose results differ"
    current = name
    for old, new in RETIRED.items():
        if current == old or current.startswith(f"{old}_") or current.endswith(f"_{old}"):
            current = current.replace(old, new)
    if current != name and current in recipe_names():
        return f"{name!r} is now {current!r}"
    return f"no recipe {name!r}; available: {recipe_help()}"


def _applies(parent: Recipe, ablate: Callable[[Recipe], Recipe]) -> bool:
    """Whether the recipe has the module, a fusion gate for example, that the ablation switches off."""
    return replace(ablate(parent), name=parent.name) != parent
