"""Checks of a run's samples before training: stages whose samples have no negatives, or a single class."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stbir.config import Recipe, Stage
from stbir.data.photo_index import IntArray, PhotoIndex
from stbir.data.sampling import calibration_photos, eligible_photos, num_stage_steps
from stbir.errors import InputError

FloatArray = NDArray[np.float64]
MAX_SHARE = 0.5  # of samples without a negative
# Below, a run learns little: 200 photos trained an ImageNet model on chairs, and 560 the demo from scratch
# (docs/experiments.md).
MIN_PHOTOS, MIN_PHOTOS_FROM_SCRATCH, MIN_STEPS = 100, 500, 100


def sample_problems(photos: PhotoIndex, recipe: Recipe) -> list[str]:
    """One line per problem, with its remedy. Training can start, but such a stage learns little.

    Raises InputError if there are too few photos for the calibration after training.
    """
    if recipe.calibrate:
        calibration_photos(photos)
    shares = [share_without_negatives(photos, stage, recipe.batch_size) for stage in recipe.stages]
    no_negatives = [s.name for s, share in zip(recipe.stages, shares, strict=True) if share > MAX_SHARE]
    single = [stage.name for stage in recipe.stages if _has_single_class(photos, recipe, stage)]
    problems = []
    if no_negatives:
        problems += [
            f"stages {', '.join(no_negatives)}: {max(shares):.0%} of the samples have no other photo with"
            " another caption in their batch, so their loss is 0; add photos, or raise batch_size"
        ]
    if single:
        problems += [
            f"stages {', '.join(single)}: all photos have one class, so the category loss is 0;"
            " add photos of other classes, or --set stages.NAME.objective.category=0"
        ]
    return problems


def require_strokes(recipe: Recipe, counts: Sequence[Mapping[str, int]]) -> None:
    """Raises InputError if strokes are augmented and no shards have any. `counts`: of their manifests."""
    if (
        recipe.augmentation
        and recipe.augmentation.strokes
        and not any(each.get("strokes") for each in counts)
    ):
        raise InputError(
            "augmentation.strokes: the shards have no strokes; prepare them from a source that has some"
            " (docs/data.md), or set augmentation.strokes=null"
        )


def data_problem(photos: PhotoIndex, recipe: Recipe, is_initialized: bool) -> str | None:
    """The problem of a run with too few photos or steps, with its remedy; None if there are enough.

    `is_initialized`: its encoders start from a checkpoint.
    """
    encoders = (recipe.model.photo, recipe.model.sketch, recipe.model.text)
    is_pretrained = is_initialized or any(each and each.weights for each in encoders)
    steps = sum(num_stage_steps(photos, stage, recipe.batch_size) for stage in recipe.stages)
    if len(photos) < MIN_PHOTOS:
        return (
            f"{len(photos)} photos are too few to train on (at least {MIN_PHOTOS}); use CLIP without training"
            " (ray_jobs/init_checkpoint.py), or add photos"
        )
    if not is_pretrained and len(photos) < MIN_PHOTOS_FROM_SCRATCH:
        return (
            f"{len(photos)} photos are too few to train encoders from scratch (at least"
            f" {MIN_PHOTOS_FROM_SCRATCH}); start from CLIP (ray_jobs/init_checkpoint.py, then --init-from)"
        )
    if steps < MIN_STEPS:
        return (
            f"{steps} steps are too few to learn from (at least {MIN_STEPS});"
            " raise the epochs of its stages, or lower batch_size"
        )
    return None


def share_without_negatives(photos: PhotoIndex, stage: Stage, batch_size: int) -> float:
    """Expected share of samples without another photo, or another caption, among their candidates.

    In random batches, a photo with the share f of the samples fills the batch of a sample with f^(size - 1).
    """
    members = eligible_photos(photos, stage)
    samples = photos.sketch_count[members] if stage.uses_all_sketches else np.ones(len(members), np.int64)
    share, text = samples / samples.sum(), photos.text_key[members]
    # Stored negatives are other photos whenever there are any, as in a very large batch.
    size = 10**6 if stage.sampling.hard_negatives else batch_size
    has_text = text >= 0
    return max(_expected_share(members, share, size), _expected_share(text[has_text], share[has_text], size))


def _expected_share(key: IntArray, share: FloatArray, size: int) -> float:
    _, group = np.unique(key, return_inverse=True)
    return float((np.bincount(group, weights=share) ** size).sum())


def _has_single_class(photos: PhotoIndex, recipe: Recipe, stage: Stage) -> bool:
    labels = photos.label[eligible_photos(photos, stage)]
    return bool(recipe.uses_classes and stage.objective.category and np.unique(labels[labels >= 0]).size == 1)
