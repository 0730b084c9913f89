"""Reading and decoding of the samples of a step, for one worker or its share."""

import itertools
import math
from collections.abc import Iterator
from functools import partial
from operator import attrgetter

from stbir.catalogue.reading import map_ahead
from stbir.config import Recipe
from stbir.data.batch import Batch, EncodedBatch, collate, decode_batch, list_row_groups, read_row_groups
from stbir.data.photo_index import PhotoIndex
from stbir.data.sampling import Step, eligible_photos, iter_steps, samples_per_epoch
from stbir.training.curriculum import noise_level

PREFETCH_STEPS = 4  # steps that `iter_local_batches` decodes ahead


def step_ranges(photos: PhotoIndex, recipe: Recipe, start: int) -> Iterator[list[Step]]:
    """The steps from `start` on, in ranges of one stage and about one shuffle window, to be read together."""
    for number, steps in itertools.groupby(iter_steps(photos, recipe, start), key=attrgetter("stage")):
        stage = recipe.stages[number]
        samples_per_photo = samples_per_epoch(photos, stage) / len(eligible_photos(photos, stage))
        size = math.ceil(recipe.shuffle_window * samples_per_photo / recipe.batch_size)
        while steps_of_range := list(itertools.islice(steps, size)):
            yield steps_of_range


def read_shares(
    photos: PhotoIndex, recipe: Recipe, num_workers: int, steps: list[Step]
) -> Iterator[EncodedBatch]:
    """Each worker's share of each of the steps, which are of one stage. Each row group is read once."""
    stage, augment = recipe.stages[steps[0].stage], recipe.augmentation
    modalities = recipe.streamed(stage)
    columns = (
        {*modalities, "strokes"} if augment and augment.strokes and "sketch" in modalities else modalities
    )
    tables = read_row_groups(photos, list_row_groups(photos, steps), columns)
    size = recipe.batch_size // num_workers
    for step in steps:
        for worker in range(num_workers):
            part = slice(worker * size, (worker + 1) * size)
            yield collate(photos, step, (*modalities, *stage.views), tables, part, stage.candidate_modalities)


def decode_share(batch: EncodedBatch, recipe: Recipe, epoch_sizes: list[int]) -> Batch:
    """Decode one share. `epoch_sizes` are the samples per epoch of each stage, for the noise curriculum."""
    stage = recipe.stages[batch.stage]
    level = stage.noise and noise_level(stage.noise, batch.position / epoch_sizes[batch.stage])
    return decode_batch(
        batch,
        sketch=recipe.model.sketch_preprocess,
        photo=recipe.model.photo.preprocess,
        seed=recipe.seed,
        augment=recipe.augmentation,
        noise={modality: level for modality in stage.corrupted} if level else {},
        use_query_corruption=stage.noise is not None and stage.noise.kind == "query",
        views=stage.views,
        candidates=stage.candidate_modalities,
    )


def iter_local_batches(photos: PhotoIndex, recipe: Recipe, start: int = 0) -> Iterator[Batch]:
    """The batches of a single worker from step `start` on, decoded ahead by a thread of this process."""
    epoch_sizes = [samples_per_epoch(photos, stage) for stage in recipe.stages]
    ranges = step_ranges(photos, recipe, start)
    shares = (share for steps in ranges for share in read_shares(photos, recipe, 1, steps))
    return map_ahead(partial(decode_share, recipe=recipe, epoch_sizes=epoch_sizes), shares, 1, PREFETCH_STEPS)
