"""From the plan to what a training worker sees of a step: its pictures read, then decoded."""

import itertools
import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from stbir.config import Recipe
from stbir.data.batch import Batch, Encoded, decoded, encoded, places_of, read_places
from stbir.data.photo_index import Photos
from stbir.data.sampling import samples_an_epoch, steps, steps_of
from stbir.training.curriculum import level

AHEAD = 4  # steps that `local` decodes before they are asked for


def ranges(photos: Photos, recipe: Recipe, done: int) -> list[dict[str, int]]:
    """Ranges of steps that are read together: about as many samples as are shuffled together."""
    total = sum(steps_of(photos, stage, recipe.batch_size) for stage in recipe.stages)
    size = max(
        1,
        min(math.ceil(recipe.shuffle_window / recipe.batch_size), math.ceil(len(photos) / recipe.batch_size)),
    )
    return [{"start": at, "count": min(size, total - at)} for at in range(done, total, size)]


def shares(photos: Photos, recipe: Recipe, workers: int, start: int, count: int) -> Iterator[Encoded]:
    """Each worker's share of each of `count` steps; what they draw from is read once."""
    here = list(itertools.islice(steps(photos, recipe, start), count))
    needed = {modality for step in here for modality in recipe.streamed(recipe.stages[step.stage])}
    places = read_places(photos, places_of(photos, here), needed)
    share = recipe.batch_size // workers
    for step in here:
        for worker in range(workers):
            part = slice(worker * share, (worker + 1) * share)
            yield encoded(photos, step, recipe.streamed(recipe.stages[step.stage]), places, part)


def decode(rows: Encoded, recipe: Recipe, an_epoch: list[int]) -> Batch:
    """Pixels of what a step has encoded; `an_epoch`: samples an epoch of each stage, for its noise."""
    return decoded(
        rows,
        sketch_size=recipe.model.sketch_size,
        photo_size=recipe.model.photo.preprocess.size,
        seed=recipe.seed,
        augment=recipe.augmentation,
        **_noise(rows, recipe, an_epoch),
    )


def _noise(rows: Encoded, recipe: Recipe, an_epoch: list[int]) -> dict[str, Any]:
    stage = recipe.stages[rows.stage]
    if stage.noise is None:
        return {}
    levels = level(stage.noise, rows.position / an_epoch[rows.stage])
    noises: dict[str, Any] = {f"{modality}_noise": levels for modality in stage.corrupted}
    return noises | {"poor": stage.noise.kind != "pixels"}


def local(photos: Photos, recipe: Recipe, done: int = 0) -> Iterator[Batch]:
    """All shares of a single worker after `done` steps, made in this process: one thread decodes ahead."""
    an_epoch = [samples_an_epoch(photos, stage) for stage in recipe.stages]
    every = (
        rows for plan in ranges(photos, recipe, done) for rows in shares(photos, recipe, workers=1, **plan)
    )
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(1) as decoder:
        for rows in every:
            waiting.append(decoder.submit(decode, rows, recipe, an_epoch))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        yield from (each.result() for each in waiting)
