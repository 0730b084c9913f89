"""The order of training as data: which sample stands where, decided by the seed alone.

A run is one stream of samples a stage; a step takes the next `batch` of them. So a cursor (steps done)
resumes it, and the number of workers only decides who decodes which part of a step.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from stbir.config import Recipe, Stage
from stbir.data.photo_index import UNKNOWN, Ints, Photos
from stbir.errors import InputError


@dataclass(frozen=True)
class Order:
    """Samples in order: photo index (n,), sketch index (n,), drawn negatives (n, K)."""

    photo: Ints
    sketch: Ints
    hard_negatives: Ints

    def __getitem__(self, part: slice) -> "Order":
        return Order(self.photo[part], self.sketch[part], self.hard_negatives[part])


@dataclass(frozen=True)
class Step:
    """One step of training: its samples and where they stand. `first`: samples of the stage before it."""

    stage: int
    number: int
    first: int
    order: Order


def eligible(photos: Photos, stage: Stage) -> Ints:
    """Indices of the photos that have every modality the stage needs."""
    wants = stage.modalities
    fits = np.full(len(photos), True) if stage.aux else ~photos.aux
    if "sketch" in wants:
        fits &= photos.sketches > 0
    if "text" in wants:
        fits &= photos.text_key != UNKNOWN
    found = np.flatnonzero(fits)
    if found.size == 0:
        raise InputError(
            f"stages.{stage.name}: no photo has {' and '.join(wants)}; add such data to the shards"
        )
    return found


def samples_an_epoch(photos: Photos, stage: Stage) -> int:
    """How many samples one epoch of the stage has."""
    chosen = eligible(photos, stage)
    every = "sketch" in stage.modalities and stage.sketches == "all"
    return int(photos.sketches[chosen].sum()) if every else int(chosen.size)


def steps_of(photos: Photos, stage: Stage, batch: int) -> int:
    """How many steps the stage takes; the last is filled up from one more epoch's order."""
    return math.ceil(stage.epochs * samples_an_epoch(photos, stage) / batch)


def steps(photos: Photos, recipe: Recipe, done: int = 0) -> Iterator[Step]:
    """Every step of a run in order, from step `done` on (counted over all stages)."""
    for number, stage in enumerate(recipe.stages):
        total = steps_of(photos, stage, recipe.batch_size)
        if done < total:
            yield from _stage_steps(photos, recipe, number, done, total)
        done = max(0, done - total)


def _stage_steps(photos: Photos, recipe: Recipe, number: int, start: int, total: int) -> Iterator[Step]:
    stage, batch = recipe.stages[number], recipe.batch_size
    an_epoch = samples_an_epoch(photos, stage)
    epoch, skip = divmod(start * batch, an_epoch)
    held = epoch_order(photos, stage, (recipe.seed, number, epoch), recipe.shuffle_window)[skip:]
    for step in range(start, total):
        while len(held.photo) < batch:
            epoch += 1
            more = epoch_order(photos, stage, (recipe.seed, number, epoch), recipe.shuffle_window)
            held = _join([held, more])
        yield Step(number, step, step * batch, held[:batch])
        held = held[batch:]


def epoch_order(photos: Photos, stage: Stage, seed: tuple[int, ...], shuffle: int) -> Order:
    """The samples of one epoch. Row groups are permuted, then samples inside windows of whole groups
    with at least `shuffle` photos: reading stays sequential, and an epoch that fits is fully shuffled."""
    rng = np.random.default_rng(seed)
    chosen = eligible(photos, stage)
    windows = _windows(photos.place[chosen], rng, shuffle)
    return _join([_window_order(photos, stage, chosen[members], rng) for members in windows])


def _windows(place: Ints, rng: np.random.Generator, shuffle: int) -> list[Ints]:
    windows: list[Ints] = []
    held: list[Ints] = []
    for group in rng.permutation(np.unique(place)):
        held.append(np.flatnonzero(place == group))
        if sum(map(len, held)) >= shuffle:
            windows.append(np.concatenate(held))
            held = []
    return windows + ([np.concatenate(held)] if held else [])


def _window_order(photos: Photos, stage: Stage, members: Ints, rng: np.random.Generator) -> Order:
    photo, sketch = _samples(photos, stage, members, rng)
    order = rng.permutation(len(photo))
    if stage.per_class > 1:
        order = _side_by_side(order, photos.label[photo], photo, stage.per_class)
    photo = photo[order]
    return Order(
        photo, sketch[order], _drawn_negatives(photos.label, photo, members, stage.hard_negatives, rng)
    )


def _samples(photos: Photos, stage: Stage, members: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    if "sketch" not in stage.modalities:
        return members, np.full(len(members), UNKNOWN)
    count = photos.sketches[members]
    if stage.sketches == "one":
        return members, rng.integers(0, count)
    return every(members, count)


def every(members: Ints, count: Ints) -> tuple[Ints, Ints]:
    """Each photo as often as `count` (n,) says, and the numbers from 0 of what it has."""
    return np.repeat(members, count), np.concatenate([np.arange(n) for n in count])


def _side_by_side(order: Ints, label: Ints, photo: Ints, group: int) -> Ints:
    """Bring samples of one class, of different photos, into runs of `group`; otherwise keep the order."""
    waiting: dict[int, list[int]] = {}
    placed: list[int] = []
    for sample in order:
        mates = waiting.setdefault(int(label[sample]), [])
        if any(photo[mate] == photo[sample] for mate in mates):
            placed.append(int(sample))
            continue
        mates.append(int(sample))
        if len(mates) == group:
            placed += waiting.pop(int(label[sample]))
    return np.array(placed + [sample for mates in waiting.values() for sample in mates], np.int64)


def _drawn_negatives(label: Ints, photo: Ints, members: Ints, k: int, rng: np.random.Generator) -> Ints:
    """(n, K) photos of the same class but another instance, K different ones where there are as many; of any
    class where a class has only one.

    A lone photo gets itself, which the mask of negatives (`training.negatives`) leaves out.
    """
    drawn = np.repeat(photo[:, None], k, axis=1)
    if k == 0 or len(members) < 2:
        return drawn
    for i, own in enumerate(photo):
        mates = members[(label[members] == label[own]) & (members != own)]
        pool = mates if mates.size else members[members != own]
        drawn[i] = rng.choice(pool, k, replace=pool.size < k)
    return drawn


def _join(orders: Sequence[Order]) -> Order:
    return Order(*(np.concatenate([getattr(o, f.name) for o in orders]) for f in fields(Order)))
