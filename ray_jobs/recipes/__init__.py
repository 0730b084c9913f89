"""Every choice of a run in one place: a recipe is a function that returns one frozen Recipe.

A variant calls its parent and replaces a field.
"""

from collections.abc import Callable
from dataclasses import replace

from ray_jobs.recipes.ablations import ablations
from ray_jobs.recipes.chairs import ours_brief, ours_small, paper_brief, paper_small, stbir_c_small
from ray_jobs.recipes.published import stbir_c, stbir_d, stbir_s
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
    stbir_s,
    stbir_c,
    stbir_d,
)


def names() -> list[str]:
    """Every recipe there is: the parents, and each with one thing changed that it has."""
    parents = [parent() for parent in PARENTS]
    variants = [
        change(parent) for parent in parents for change in ablations().values() if _has(parent, change)
    ]
    return [each.name for each in (*parents, *variants)]


def choice() -> str:
    """The same in a line, for people."""
    parents = ", ".join(parent.__name__ for parent in PARENTS)
    return f"{parents}; and each of these with an underscore and {', '.join(ablations())}"


def recipe(name: str) -> Recipe:
    """The recipe of that name. Raises InputError for an unknown one, and for a change of what it lacks."""
    for parent in PARENTS:
        if name == parent.__name__:
            return parent()
        for ending, change in ablations().items():
            if name == f"{parent.__name__}_{ending}":
                if not _has(parent(), change):
                    raise InputError(f"--recipe: {name!r} would be {parent.__name__!r} itself; ask for that")
                return change(parent())
    raise InputError(f"--recipe: no {name!r}; there is {choice()}")


def _has(parent: Recipe, change: Callable[[Recipe], Recipe]) -> bool:
    """Whether the recipe has what the change is about: hubs corrected, say, or a gate."""
    return replace(change(parent), name=parent.name) != parent
