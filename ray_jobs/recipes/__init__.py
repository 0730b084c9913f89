"""Every choice of a run in one place: a recipe is a function that returns one frozen Recipe.

A variant calls its parent and replaces a field.
"""

from collections.abc import Callable

from ray_jobs.recipes.ablations import all_at_once, with_clusters, without_category, without_curriculum
from ray_jobs.recipes.chairs import ours_small, paper_small, stbir_c_brief, stbir_c_small
from ray_jobs.recipes.reference import paper
from ray_jobs.recipes.small import demo, smoke
from stbir.config import Recipe
from stbir.errors import InputError

PARENTS: tuple[Callable[[], Recipe], ...] = (
    smoke,
    demo,
    stbir_c_small,
    stbir_c_brief,
    ours_small,
    paper,
    paper_small,
)
ABLATIONS: tuple[Callable[[Recipe], Recipe], ...] = (
    without_curriculum,
    without_category,
    with_clusters,
    all_at_once,
)


def names() -> list[str]:
    """Every recipe there is: the parents, and each with one module off."""
    parents = [parent.__name__ for parent in PARENTS]
    return parents + [f"{parent}_{ablation.__name__}" for parent in parents for ablation in ABLATIONS]


def recipe(name: str) -> Recipe:
    """The recipe of that name. Raises InputError for an unknown one."""
    for parent in PARENTS:
        if name == parent.__name__:
            return parent()
        for ablation in ABLATIONS:
            if name == f"{parent.__name__}_{ablation.__name__}":
                return ablation(parent())
    raise InputError(f"--recipe: no {name!r}; there is {', '.join(names())}")
