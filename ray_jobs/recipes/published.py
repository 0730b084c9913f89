"""Recipes for the published data sets on GPUs: the reference's towers, fitted to many sketches a photo."""

from dataclasses import replace

from ray_jobs.recipes.reference import paper
from stbir.config import Augment, Recipe

BATCH = 96  # divides by 1, 2, 3, 4, 6 and 8 workers, so that a run may grow and shrink from 1 to 4
CHUNK = 48  # samples a worker encodes at once: with their six negatives about 20 GB at 224 pixels


def stbir_s() -> Recipe:
    """STBIR-S, shoes: QMUL ShoeV2 with captions and hand-made classes."""
    return _published("stbir_s")


def stbir_c() -> Recipe:
    """STBIR-C, chairs: QMUL ChairV2 with captions and hand-made classes."""
    return _published("stbir_c")


def stbir_d() -> Recipe:
    """STBIR-D, daily objects: Sketchy's categories are the classes."""
    return _published("stbir_d")


def _published(name: str) -> Recipe:
    """The reference with every sketch an epoch, pictures that move, and a batch for several GPUs.

    As the batch is six times the reference's, the rate is higher by its square root.
    """
    parent = paper()
    stages = tuple(
        replace(stage, sketches="all") if "sketch" in stage.modalities else stage for stage in parent.stages
    )
    rate = round(parent.optimiser.lr * (BATCH / parent.batch) ** 0.5, 6)
    return replace(
        parent,
        name=name,
        stages=stages,
        batch=BATCH,
        chunk=CHUNK,
        optimiser=replace(parent.optimiser, lr=rate, warmup=0.05),
        augment=Augment(),
    )
