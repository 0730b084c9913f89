"""Every choice of a run in one place: a recipe is a function that returns one frozen Recipe.

A variant calls its parent and replaces a field.
"""

from collections.abc import Callable

from ray_jobs.recipes.ablations import (
    all_at_once,
    image_sketch_text,
    image_text_sketch,
    sketch_text_image,
    text_image_sketch,
    text_sketch_image,
    with_clusters,
    without_category,
    without_curriculum,
)
from ray_jobs.recipes.chairs import ours_brief, ours_small, paper_brief, paper_small, stbir_c_small
from ray_jobs.recipes.reference import paper
from ray_jobs.recipes.small import demo, smoke
from stbir.config import Recipe
from stbir.errors import InputError

PARENTS: tuple[Callable[[], Recipe], ...] = (
    smoke,
    demo,
    stbir_c_small,
    ours_small,
    ours_brief,
    paper,
    paper_small,
    paper_brief,
)
ABLATIONS: tuple[Callable[[Recipe], Recipe], ...] = (
    without_curriculum,
    without_category,
    with_clusters,
    all_at_once,
    sketch_text_image,
    image_sketch_text,
    image_text_sketch,
    text_sketch_image,
    text_image_sketch,
)


def names() -> list[str]:
    """Every recipe there is: the parents, and each with one thing changed."""
    parents = [parent.__name__ for parent in PARENTS]
    return parents + [f"{parent}_{ablation.__name__}" for parent in parents for ablation in ABLATIONS]


def choice() -> str:
    """The same in a line, for people."""
    parents, ablations = (", ".join(each.__name__ for each in of) for of in (PARENTS, ABLATIONS))
    return f"{parents}; and each of these with an underscore and {ablations}"


def recipe(name: str) -> Recipe:
    """The recipe of that name. Raises InputError for an unknown one."""
    for parent in PARENTS:
        if name == parent.__name__:
            return parent()
        for ablation in ABLATIONS:
            if name == f"{parent.__name__}_{ablation.__name__}":
                return ablation(parent())
    raise InputError(f"--recipe: no {name!r}; there is {choice()}")
