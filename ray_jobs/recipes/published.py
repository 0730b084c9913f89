"""Recipes for the published data sets on GPUs: the reference's encoders, with every sketch of a photo."""

from dataclasses import replace

from ray_jobs.recipes.reference import reference
from ray_jobs.recipes.stages import (
    PHOTO_TO_TEXT,
    SKETCH_TO_PHOTO,
    with_candidates,
    with_optimizer,
    with_pair,
    with_sampling,
    with_text_queries,
)
from stbir.config import Augmentation, Recipe

BATCH = 96  # divisible by 1, 2, 3, 4, 6 and 8 workers, so that an elastic run may have 1 to 4
CHUNK = 48  # samples a worker encodes at a time: about 20 GB with six negatives each at 224 pixels


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
    """The reference with every sketch an epoch, augmentation, and a batch for several GPUs.

    Negatives are those of the batch in addition to the hard ones. The queries of one modality have pairs of
    their own, as queries are made of either.
    The batch is six times the reference's, so the learning rate is multiplied by the square root of six.
    """
    parent = reference()
    sketch, image, text = (with_sampling(stage, sketches="all") for stage in parent.stages)
    stages = with_text_queries(
        (
            with_pair(sketch, SKETCH_TO_PHOTO),
            with_pair(image, SKETCH_TO_PHOTO),
            with_pair(text, PHOTO_TO_TEXT),
        )
    )
    stages = tuple(with_candidates(stage, "batch+hard") for stage in stages)
    optimizer = parent.stages[0].optimizer
    rate = round(optimizer.lr * (BATCH / parent.batch_size) ** 0.5, 6)
    return replace(
        parent,
        name=name,
        stages=with_optimizer(replace(optimizer, lr=rate, warmup_ratio=0.05), stages),
        batch_size=BATCH,
        chunk_size=CHUNK,
        augmentation=Augmentation(),
    )
