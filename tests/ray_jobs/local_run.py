"""Training in this process: only the calls of Ray Train are replaced.

`python -m tests.ray_jobs.local_run SHARDS OUT` trains `resume_recipe`.
"""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast
from unittest.mock import patch

import torch
from ray.util.queue import Queue

from ray_jobs.jobs.train import build_initial_model, initialize_checkpoint
from ray_jobs.recipes import recipe
from ray_jobs.recipes.override import override
from ray_jobs.training import decode, ingest
from ray_jobs.training.job import Job, num_completed_steps
from ray_jobs.training.worker import train_loop_per_worker
from stbir.config import Recipe
from stbir.data.photo_index import build_photo_index, class_names
from stbir.data.shards import open_shards
from stbir.storage.lock import Lock


def resume_recipe() -> Recipe:
    return override(recipe("smoke"), ["batch_size=8", "stages.sketch.epochs=4"])


def local_job(recipe: Recipe, uri: str, out: str, checkpoint_interval: int | None = None) -> Job:
    shards = open_shards(uri)
    classes = class_names(shards, ["train"])
    photos = build_photo_index(shards, ["train"], classes)
    progress = cast(Queue, SimpleNamespace(put=lambda line: None))
    digests, lock = [shards.manifest.digest], cast(Lock, SimpleNamespace(check=lambda: None))
    return Job(
        recipe, photos, classes, out, digests, None, progress, lock, checkpoint_interval=checkpoint_interval
    )


def run_locally(job: Job, preemption_info: Callable[[], object] = lambda: None) -> str | None:
    """Start or resume the run at `job.out`, as `train.main` does with one worker."""
    initialize_checkpoint(job, build_initial_model(job.recipe, job.out))
    start = num_completed_steps(job.out)
    context = SimpleNamespace(get_local_world_size=lambda: 1, get_world_rank=lambda: 0)
    with (
        patch("ray.train.get_context", lambda: context),
        patch("ray.train.torch.get_device", lambda: torch.device("cpu")),
        patch("ray.train.get_dataset_shard", lambda name: None),
        patch("ray.train.report", lambda line: None),
        patch("ray.train.get_preemption_info", preemption_info),
        patch.object(
            ingest, "iter_batches", lambda shard: decode.iter_local_batches(job.photos, job.recipe, start)
        ),
    ):
        return train_loop_per_worker(job)


if __name__ == "__main__":
    run_locally(local_job(resume_recipe(), sys.argv[1], sys.argv[2], checkpoint_interval=3))
