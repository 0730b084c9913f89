"""A recipe with one module of the method off."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ray_jobs.recipes.stages import lasting
from stbir.config import MODALITIES, Recipe

CLUSTERS = 24  # as many as the chairs have hand-made classes
NO_RATE = 1e-12  # moves nothing; a rate is more than 0


def without_curriculum(parent: Recipe) -> Recipe:
    """Module 3 off: no noise. A gate still learns from poor queries, or it would have nothing to learn."""
    stages = tuple(
        stage if stage.learns == ("gate",) else replace(stage, noise=None) for stage in parent.stages
    )
    return replace(parent, name=f"{parent.name}_without_curriculum", stages=stages)


def without_category(parent: Recipe) -> Recipe:
    """Module 2 off: no classes, neither in the loss nor in the choice of negatives."""
    stages = tuple(
        replace(stage, weights=replace(stage.weights, category=0.0), negatives="batch", hard=0, group=1)
        for stage in parent.stages
    )
    return replace(parent, name=f"{parent.name}_without_category", stages=stages)


def with_clusters(parent: Recipe) -> Recipe:
    """Module 2 without labels: clusters of image features for classes."""
    return replace(parent, name=f"{parent.name}_with_clusters", clusters=CLUSTERS)


def without_hubness(parent: Recipe) -> Recipe:
    """Scores as they are: photos that lie near to whatever is asked keep what they owe to that."""
    stages = tuple(replace(stage, hubness=False) for stage in parent.stages)
    return replace(parent, name=f"{parent.name}_without_hubness", stages=stages)


def without_gate(parent: Recipe) -> Recipe:
    """Queries fused by the plain mean: the gate begins as that, and does not learn. Same towers."""
    stages = tuple(
        replace(stage, lr=NO_RATE) if stage.learns == ("gate",) else stage for stage in parent.stages
    )
    return replace(parent, name=f"{parent.name}_without_gate", stages=stages)


def all_at_once(parent: Recipe) -> Recipe:
    """Module 1 off: after what prepares them, all towers learn at once, from all the pairs of the stages.

    For as many epochs as the stages that see every sketch have together; those of one sketch a photo, which
    are a fraction as long, are not made up for. One tower for sketches and photos stays one, and the noise
    is that of the longest stage that has some: the curriculum is another module.
    """
    kept = tuple(stage for stage in parent.stages if stage.extra)
    gates = tuple(stage for stage in parent.stages if stage.learns == ("gate",))
    merged = [stage for stage in parent.stages if not stage.extra and stage not in gates]
    epochs = sum(stage.epochs for stage in merged if stage.sketches == merged[0].sketches)
    noisy = sorted((stage for stage in merged if stage.noise), key=lambda stage: stage.epochs)
    last = replace(
        max(merged, key=lambda stage: stage.weights.category),
        name="all",
        learns=MODALITIES,
        pairs=tuple(dict.fromkeys(pair for stage in merged for pair in stage.pairs)),
        epochs=epochs,
        noise=lasting(noisy[-1], epochs).noise if noisy else None,
        sketches=merged[0].sketches,
        tied=merged[0].tied,
        lr=None,
    )
    return replace(parent, name=f"{parent.name}_all_at_once", stages=(*kept, last, *gates))


def in_order(parent: Recipe, order: tuple[str, ...]) -> Recipe:
    """Module 1 with its three stages in another order."""
    three = {stage.name: stage for stage in parent.stages if stage.name in order}
    turns = (three[name] for name in order)
    stages = tuple(next(turns) if stage.name in three else stage for stage in parent.stages)
    return replace(parent, name=f"{parent.name}_{'_'.join(order)}", stages=stages)


def ablations() -> dict[str, Callable[[Recipe], Recipe]]:
    """Each by the name that its recipes end with."""
    modules = (
        without_curriculum,
        without_category,
        without_hubness,
        without_gate,
        with_clusters,
        all_at_once,
    )
    found: dict[str, Callable[[Recipe], Recipe]] = {each.__name__: each for each in modules}
    [_, *orders] = itertools.permutations(("sketch", "image", "text"))
    return found | {"_".join(order): partial(in_order, order=order) for order in orders}
