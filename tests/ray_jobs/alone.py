"""A worker's work without Ray: what Ray Train tells it is told here, the rest is real.

`python -m tests.ray_jobs.alone SHARDS OUT` trains `recipe_to_cut` until it is done, or killed.
"""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast
from unittest.mock import patch

import torch
from ray.util.queue import Queue

from ray_jobs.jobs.train import _begin
from ray_jobs.recipes import recipe
from ray_jobs.recipes.override import override
from ray_jobs.training import decode, ingest
from ray_jobs.training.job import Job, steps_done
from ray_jobs.training.worker import work
from stbir.config import Recipe
from stbir.data.photo_index import classes_of, index_photos
from stbir.data.shards import open_shards


def recipe_to_cut() -> Recipe:
    return override(recipe("smoke"), ["batch_size=8", "stages.sketch.epochs=4"])


def job_of(recipe: Recipe, shards: str, out: str, save_every: int | None = None) -> Job:
    there = open_shards(shards)
    classes = classes_of(there, ["train"])
    photos = index_photos(there, ["train"], classes)
    progress = cast(Queue, SimpleNamespace(put=lambda line: None))
    return Job(recipe, photos, classes, out, shards, [there.manifest.digest], None, progress, save_every)


def work_alone(job: Job, notice: Callable[[], object] = lambda: None) -> str | None:
    """Begin at `job.out`, or go on from what lies there, as `train.main` would on one worker.

    `notice` is what Ray Train says of a node that is about to be taken away.
    """
    _begin(job)
    done = steps_done(job.out)
    context = SimpleNamespace(get_local_world_size=lambda: 1, get_world_rank=lambda: 0)
    with (
        patch("ray.train.get_context", lambda: context),
        patch("ray.train.torch.get_device", lambda: torch.device("cpu")),
        patch("ray.train.get_dataset_shard", lambda name: None),
        patch("ray.train.report", lambda line: None),
        patch("ray.train.get_preemption_info", notice),
        patch.object(ingest, "batches", lambda shard: decode.local(job.photos, job.recipe, done)),
    ):
        return work(job)


if __name__ == "__main__":
    work_alone(job_of(recipe_to_cut(), sys.argv[1], sys.argv[2], save_every=3))
