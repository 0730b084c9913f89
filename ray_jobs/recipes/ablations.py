"""Ablations: a recipe with one module of the method switched off."""

from collections.abc import Callable
from dataclasses import replace

from ray_jobs.recipes.stages import with_epochs, with_sampling, with_terms
from stbir.config import MODALITIES, Objective, Recipe, Trainable

NUM_CLUSTERS = 24  # the number of hand-made classes of the chairs
ZERO_LR = 1e-12  # trains nothing; a learning rate must be positive


def without_curriculum(parent: Recipe) -> Recipe:
    """Module 3 off: no noise. The fusion gate keeps its corrupted queries, the only thing it learns from."""
    stages = tuple(stage if stage.trainable.gate else replace(stage, noise=None) for stage in parent.stages)
    return replace(parent, name=f"{parent.name}_without_curriculum", stages=stages)


def without_category(parent: Recipe) -> Recipe:
    """Module 2 off: no classes, neither in the loss nor in the choice of negatives."""
    stages = tuple(
        replace(
            stage,
            sampling=replace(stage.sampling, hard_negatives=0, per_class=1),
            objective=Objective(with_terms(stage.objective.pairs, candidates="batch")),
        )
        for stage in parent.stages
    )
    return replace(parent, name=f"{parent.name}_without_category", stages=stages)


def with_clusters(parent: Recipe) -> Recipe:
    """Module 2 without labels: clusters of image features are the classes."""
    return replace(parent, name=f"{parent.name}_with_clusters", num_clusters=NUM_CLUSTERS)


def without_hubness(parent: Recipe) -> Recipe:
    """No hubness correction."""
    stages = tuple(replace(stage, hubness=False) for stage in parent.stages)
    return replace(parent, name=f"{parent.name}_without_hubness", stages=stages)


def without_gate(parent: Recipe) -> Recipe:
    """Fusion by the plain mean: the gate starts as the mean and is not trained. Same encoders."""
    stages = tuple(
        replace(stage, optimizer=replace(stage.optimizer, lr=ZERO_LR)) if stage.trainable.gate else stage
        for stage in parent.stages
    )
    return replace(parent, name=f"{parent.name}_without_gate", stages=stages)


def joint_only(parent: Recipe) -> Recipe:
    """Module 1 off: after pretraining, one stage trains all encoders from all pairs of the stages.

    It has as many epochs as the stages that use every sketch have together; stages of one sketch a photo, a
    fraction as long, are not compensated. A shared encoder stays shared. The noise is that of the longest
    stage with noise, as the curriculum is another module.
    """
    pretraining = tuple(stage for stage in parent.stages if stage.sampling.aux)
    fusion = tuple(stage for stage in parent.stages if stage.trainable.gate)
    merged = [stage for stage in parent.stages if not stage.sampling.aux and stage not in fusion]
    epochs = sum(stage.epochs for stage in merged if stage.sampling.sketches == merged[0].sampling.sketches)
    noisy = sorted((stage for stage in merged if stage.noise), key=lambda stage: stage.epochs)
    last = max(merged, key=lambda stage: stage.objective.category)
    alignments = dict.fromkeys((p.anchor, p.positive) for stage in merged for p in stage.objective.pairs)
    [terms, *_] = last.objective.pairs
    pairs = tuple(replace(terms, anchor=anchor, positive=positive) for anchor, positive in alignments)
    last = replace(
        with_sampling(last, sketches=merged[0].sampling.sketches),
        name="joint_only",
        trainable=Trainable(MODALITIES, shared=merged[0].trainable.shared),
        objective=replace(last.objective, pairs=pairs),
        epochs=epochs,
        noise=with_epochs(noisy[-1], epochs).noise if noisy else None,
        optimizer=max(merged, key=lambda stage: stage.epochs).optimizer,
    )
    return replace(parent, name=f"{parent.name}_joint_only", stages=(*pretraining, last, *fusion))


ABLATIONS: dict[str, Callable[[Recipe], Recipe]] = {
    "without_curriculum": without_curriculum,
    "without_category": without_category,
    "without_hubness": without_hubness,
    "without_gate": without_gate,
    "with_clusters": with_clusters,
    "joint_only": joint_only,
}
