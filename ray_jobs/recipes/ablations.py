"""Ablations: a recipe with one module of the method switched off, and nothing else changed."""

from collections.abc import Callable
from dataclasses import replace

from stbir.config import MODALITIES, Noise, Recipe, Stage

NUM_CLUSTERS = 24  # the number of hand-made classes of the chairs
ZERO_LR = 1e-12  # trains nothing; a learning rate must be positive


def without_curriculum(parent: Recipe) -> Recipe:
    """Module 3 off: the same noise without a ramp. As many images are corrupted, as strongly on average."""
    stages = tuple(
        replace(stage, noise=stage.noise and _constant(stage.noise, stage.epochs)) for stage in parent.stages
    )
    return replace(parent, name=f"{parent.name}_without_curriculum", stages=stages)


def _constant(noise: Noise, epochs: int) -> Noise:
    """The noise of constant level with the stage's mean of p, and of p·σ; its ramp ends within `epochs`."""
    (p0, p1), (s0, s1) = noise.probability, noise.strength
    mean_r = 1 - (noise.start + noise.ramp / 2) / epochs  # of r, `training.curriculum`
    mean_r2 = 1 - (noise.start + noise.ramp * 2 / 3) / epochs
    p = p0 + (p1 - p0) * mean_r
    mean_ps = p0 * s0 + (p0 * (s1 - s0) + s0 * (p1 - p0)) * mean_r + (p1 - p0) * (s1 - s0) * mean_r2
    strength = mean_ps / p
    return replace(noise, probability=(p, p), strength=(strength, strength))


def without_noise(parent: Recipe) -> Recipe:
    """No noise at all. The fusion gate keeps its corrupted queries, the only thing it learns from."""
    stages = tuple(stage if stage.trainable.gate else replace(stage, noise=None) for stage in parent.stages)
    return replace(parent, name=f"{parent.name}_without_noise", stages=stages)


def without_category(parent: Recipe) -> Recipe:
    """Module 2 off: no class term, and all photos are one class.

    A sample has as many negatives as before, of any class.
    """
    stages = tuple(
        replace(stage, objective=replace(stage.objective, category=0.0)) for stage in parent.stages
    )
    num_clusters = 1 if parent.uses_classes else parent.num_clusters
    return replace(parent, name=f"{parent.name}_without_category", stages=stages, num_clusters=num_clusters)


def with_clusters(parent: Recipe) -> Recipe:
    """Module 2 without labels: clusters of image features are the classes."""
    num_clusters = NUM_CLUSTERS if parent.uses_classes else parent.num_clusters
    return replace(parent, name=f"{parent.name}_with_clusters", num_clusters=num_clusters)


def without_hubness(parent: Recipe) -> Recipe:
    """No hubness correction."""
    return replace(parent, name=f"{parent.name}_without_hubness", calibrate=False)


def without_gate(parent: Recipe) -> Recipe:
    """Fusion by the plain mean: the gate starts as the mean and is not trained. Same encoders."""
    stages = tuple(
        replace(stage, optimizer=replace(stage.optimizer, lr=ZERO_LR)) if stage.trainable.gate else stage
        for stage in parent.stages
    )
    return replace(parent, name=f"{parent.name}_without_gate", stages=stages)


def joint_only(parent: Recipe) -> Recipe:
    """Module 1 off: each stage that trains one encoder trains the encoders of all these, on all their pairs.

    Samples, steps, noise and optimizers stay the same, and so do the other stages.
    """
    single = [stage for stage in parent.stages if _trains_one_encoder(stage)]
    encoders = {encoder for stage in single for encoder in stage.trainable.encoders}
    pairs = tuple(dict.fromkeys(pair for stage in single for pair in stage.objective.pairs))
    stages = tuple(
        replace(
            stage,
            trainable=replace(stage.trainable, encoders=tuple(m for m in MODALITIES if m in encoders)),
            objective=replace(stage.objective, pairs=pairs),
            noise=stage.noise and replace(stage.noise, modalities=stage.corrupted),
        )
        if stage in single
        else stage
        for stage in parent.stages
    )
    return replace(parent, name=f"{parent.name}_joint_only", stages=stages)


def _trains_one_encoder(stage: Stage) -> bool:
    return len(stage.trainable.encoders) == 1 and not stage.trainable.gate


ABLATIONS: dict[str, Callable[[Recipe], Recipe]] = {
    "without_curriculum": without_curriculum,
    "without_noise": without_noise,
    "without_category": without_category,
    "without_hubness": without_hubness,
    "without_gate": without_gate,
    "with_clusters": with_clusters,
    "joint_only": joint_only,
}
