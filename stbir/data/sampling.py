"""The order of training samples as a function of the seed.

Each stage is one stream of samples, and each step takes the next `batch_size` of them. A step count is
therefore enough to resume. The number of workers decides only which worker decodes which samples.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from stbir.config import Recipe, Stage
from stbir.data.photo_index import UNKNOWN, IntArray, PhotoIndex
from stbir.errors import InputError

MIN_CALIBRATION_PHOTOS = 11  # a photo has ten neighbours among the queries of other photos


@dataclass(frozen=True)
class Order:
    """A sequence of samples: photo index (n,), sketch number (n,), hard negatives (n, K)."""

    photo: IntArray
    sketch: IntArray
    hard_negatives: IntArray

    def __getitem__(self, part: slice) -> "Order":
        return Order(self.photo[part], self.sketch[part], self.hard_negatives[part])


@dataclass(frozen=True)
class Step:
    """One training step: its number in the stage and its samples. `offset`: samples of earlier steps."""

    stage: int
    number: int
    offset: int
    order: Order


def eligible_photos(photos: PhotoIndex, stage: Stage) -> IntArray:
    """Indices of the photos that have all modalities of the stage. Raises InputError if there are none."""
    modalities = stage.modalities
    mask = np.full(len(photos), True) if stage.sampling.aux else ~photos.aux
    if "sketch" in modalities:
        mask &= photos.sketch_count > 0
    if "text" in modalities:
        mask &= photos.text_key != UNKNOWN
    if not mask.any():
        raise InputError(
            f"stages.{stage.name}: no photo has {' and '.join(modalities)}; add such data to the shards"
        )
    return np.flatnonzero(mask)


def calibration_photos(photos: PhotoIndex, most: int | None = None) -> IntArray:
    """Indices of the photos that calibration measures on: `most`, evenly spaced; None: all of them.

    They have sketches and a caption, and are not auxiliary. Raises InputError if there are too few.
    """
    chosen = np.flatnonzero((photos.sketch_count > 0) & (photos.text_key != UNKNOWN) & ~photos.aux)
    if len(chosen) < MIN_CALIBRATION_PHOTOS:
        raise InputError(
            f"calibrate: {len(chosen)} photos have sketches and a caption, fewer than"
            f" {MIN_CALIBRATION_PHOTOS}; add some, or train with --set calibrate=false"
        )
    spaced = np.linspace(0, len(chosen) - 1, min(most or len(chosen), len(chosen)))
    return chosen[spaced.round().astype(np.int64)]


def samples_per_epoch(photos: PhotoIndex, stage: Stage) -> int:
    """Number of samples in one epoch of the stage."""
    members = eligible_photos(photos, stage)
    return int(photos.sketch_count[members].sum()) if stage.uses_all_sketches else int(members.size)


def num_stage_steps(photos: PhotoIndex, stage: Stage, batch_size: int) -> int:
    """Number of steps of the stage. One more epoch's order fills up the last step."""
    return math.ceil(stage.epochs * samples_per_epoch(photos, stage) / batch_size)


def iter_steps(photos: PhotoIndex, recipe: Recipe, start: int = 0) -> Iterator[Step]:
    """The steps of a run in order, from step `start` (counted over all stages)."""
    for number, stage in enumerate(recipe.stages):
        total = num_stage_steps(photos, stage, recipe.batch_size)
        if start < total:
            yield from _stage_steps(photos, recipe, number, start, total)
        start = max(0, start - total)


def _stage_steps(photos: PhotoIndex, recipe: Recipe, number: int, start: int, total: int) -> Iterator[Step]:
    stage, batch_size = recipe.stages[number], recipe.batch_size
    epoch, skip = divmod(start * batch_size, samples_per_epoch(photos, stage))
    buffer = epoch_order(photos, stage, (recipe.seed, number, epoch), recipe.shuffle_window)[skip:]
    for step in range(start, total):
        while len(buffer.photo) < batch_size:
            epoch += 1
            order = epoch_order(photos, stage, (recipe.seed, number, epoch), recipe.shuffle_window)
            buffer = _concatenate([buffer, order])
        yield Step(number, step, step * batch_size, buffer[:batch_size])
        buffer = buffer[batch_size:]


def epoch_order(photos: PhotoIndex, stage: Stage, seed: tuple[int, ...], shuffle_window: int) -> Order:
    """The samples of one epoch, shuffled in windows.

    Row groups are permuted and joined to windows of at least `shuffle_window` photos. Samples are permuted
    inside a window. Reads therefore stay sequential, and an epoch of one window is fully shuffled.
    """
    rng = np.random.default_rng(seed)
    members = eligible_photos(photos, stage)
    windows = _windows(photos.row_group[members], rng, shuffle_window)
    return _concatenate([_window_order(photos, stage, members[window], rng) for window in windows])


def _windows(row_group: IntArray, rng: np.random.Generator, shuffle_window: int) -> list[IntArray]:
    windows: list[IntArray] = []
    buffer: list[IntArray] = []
    for group in rng.permutation(np.unique(row_group)):
        buffer.append(np.flatnonzero(row_group == group))
        if sum(map(len, buffer)) >= shuffle_window:
            windows.append(np.concatenate(buffer))
            buffer = []
    return windows + ([np.concatenate(buffer)] if buffer else [])


def _window_order(photos: PhotoIndex, stage: Stage, members: IntArray, rng: np.random.Generator) -> Order:
    photo, sketch = _samples(photos, stage, members, rng)
    order = rng.permutation(len(photo))
    if stage.sampling.per_class > 1:
        order = _group_by_class(order, photos.label[photo], photo, stage.sampling.per_class)
    photo = photo[order]
    hard_negatives = _sample_hard_negatives(photos.label, photo, members, stage.sampling.hard_negatives, rng)
    return Order(photo, sketch[order], hard_negatives)


def _samples(
    photos: PhotoIndex, stage: Stage, members: IntArray, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    if "sketch" not in stage.modalities:
        return members, np.full(len(members), UNKNOWN)
    sketch_count = photos.sketch_count[members]
    if stage.sampling.sketches == "one":
        return members, rng.integers(0, sketch_count)
    return expand_sketches(members, sketch_count)


def expand_sketches(photo: IntArray, sketch_count: IntArray) -> tuple[IntArray, IntArray]:
    """One sample per sketch: each photo (n,) repeated `sketch_count` (n,) times, and the sketch numbers."""
    return np.repeat(photo, sketch_count), np.concatenate([np.arange(count) for count in sketch_count])


def _group_by_class(order: IntArray, label: IntArray, photo: IntArray, per_class: int) -> IntArray:
    """Reorder into runs of `per_class` samples of one class from different photos."""
    pending: dict[int, list[int]] = {}
    result: list[int] = []
    for sample in order.tolist():
        run = pending.setdefault(int(label[sample]), [])
        if any(photo[other] == photo[sample] for other in run):
            result.append(sample)
            continue
        run.append(sample)
        if len(run) == per_class:
            result += pending.pop(int(label[sample]))
    return np.array(result + [sample for run in pending.values() for sample in run], np.int64)


def _sample_hard_negatives(
    label: IntArray, photo: IntArray, members: IntArray, k: int, rng: np.random.Generator
) -> IntArray:
    """(n, K) other photos of the same class, or of any class if the class has one photo.

    They differ if there are at least K. A window of one photo gives the photo itself, which the mask of
    `training.negatives` excludes.
    """
    negatives = np.repeat(photo[:, None], k, axis=1)
    if k == 0 or len(members) < 2:
        return negatives
    for i, anchor in enumerate(photo):
        same_class = members[(label[members] == label[anchor]) & (members != anchor)]
        pool = same_class if same_class.size else members[members != anchor]
        negatives[i] = rng.choice(pool, k, replace=pool.size < k)
    return negatives


def _concatenate(orders: Sequence[Order]) -> Order:
    return Order(*(np.concatenate([getattr(order, f.name) for order in orders]) for f in fields(Order)))
