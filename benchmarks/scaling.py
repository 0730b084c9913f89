"""Scaling of training without a model: `python benchmarks/scaling.py --shards URI [--workers 1 2 4]`.

The data pipeline is the real one. Each step then sleeps for a fixed time, in place of a GPU, and averages
gradients of a fixed size by the real exchange (gloo). The share per worker is constant, so ideal scaling
keeps the steps per second: efficiency is the rate over that of one worker. The last line is JSON.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from typing import Any

import ray
import ray.train
import torch
import torch.distributed as dist
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from ray_jobs.cli import run
from ray_jobs.recipes import recipe as named_recipe
from ray_jobs.recipes.override import override
from ray_jobs.training import ingest
from ray_jobs.training.class_labels import index_photos_with_labels
from ray_jobs.training.data_config import PlanDataConfig
from ray_jobs.training.job import Job
from stbir.config import Recipe
from stbir.data.sampling import samples_per_epoch
from stbir.data.shards import open_shards
from stbir.storage.folder import Folder
from stbir.storage.lock import writer_lock

QUIET: dict[str, Any] = {"include_dashboard": False, "logging_level": "error"}
WARM_UP = 5  # steps not measured


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure each number of workers, print the table, return the summary."""
    base = override(named_recipe(args.recipe), [*args.set, f"batch_size={args.share}"])
    ray.init("local", num_cpus=max(args.workers) + ingest.NUM_DECODERS + 1, log_to_driver=False, **QUIET)
    results = {workers: _measure(args, base, workers) for workers in args.workers}
    baseline = results[args.workers[0]]["steps_per_s"]
    for figures in results.values():
        figures["efficiency"] = round(figures["steps_per_s"] / baseline, 3)
    for workers, figures in results.items():
        print(f"{workers} workers: {figures}", file=sys.stderr)
    return {"sleep_s": args.sleep, "megabytes": args.megabytes, "share": args.share, "by_workers": results}


def _measure(args: argparse.Namespace, base: Recipe, workers: int) -> dict[str, float]:
    shards = open_shards(args.shards)
    stage = max(base.stages, key=lambda stage: len(stage.modalities))
    photos, classes = index_photos_with_labels(base, shards, args.split.split(","))
    batch, needed = args.share * workers, WARM_UP + args.steps
    epochs = math.ceil(needed * batch / samples_per_epoch(photos, stage))
    recipe = replace(base, batch_size=batch, stages=(replace(stage, epochs=epochs),))
    with tempfile.TemporaryDirectory() as out, writer_lock(Folder(out)) as lock:
        job = Job(recipe, photos, classes, out, [], None, None, lock)
        trainer = TorchTrainer(
            partial(train_loop, job, args.steps, args.sleep, args.megabytes),
            datasets={"train": None},
            dataset_config=DealtFromStart(job),
            scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(name="scaling", storage_path=out),
        )
        ingest.preserve_order()
        times: dict[str, float] = trainer.fit().return_value
        return times


class DealtFromStart(PlanDataConfig):
    """`PlanDataConfig`, of a run that has no checkpoint."""

    def completed_steps(self) -> int:
        """Completed steps: 0."""
        return 0


def train_loop(job: Job, steps: int, sleep_s: float, megabytes: float) -> dict[str, float]:
    """One worker: wait for its share, sleep, exchange gradients. Median seconds after the warm-up."""
    gradients = torch.ones(int(megabytes * 2**20 / 4))
    waits, exchanges, starts = [], [], []
    shares = ingest.iter_batches(ray.train.get_dataset_shard("train"))
    for _ in range(WARM_UP + steps):
        starts.append(time.perf_counter())
        next(shares)
        waits.append(time.perf_counter() - starts[-1])
        time.sleep(sleep_s)
        begun = time.perf_counter()
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(gradients)
        exchanges.append(time.perf_counter() - begun)
    spent = time.perf_counter() - starts[WARM_UP]
    return {
        "steps_per_s": round(steps / spent, 3),
        "waited_s": round(statistics.median(waits[WARM_UP:]), 4),
        "exchanged_s": round(statistics.median(exchanges[WARM_UP:]), 4),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("benchmarks/scaling.py", description=(__doc__ or "").split(":")[0])
    add = parser.add_argument
    add("--shards", required=True, metavar="URI")
    add("--recipe", default="smoke")
    add("--split", default="train")
    add("--workers", type=int, nargs="+", default=[1, 2, 4])
    add("--share", type=int, default=16, help="samples per worker and step (%(default)s)")
    add("--steps", type=int, default=40, help="measured steps (%(default)s)")
    add("--sleep", type=float, default=0.25, metavar="SECONDS", help="computing time per step (%(default)s)")
    add("--megabytes", type=float, default=4, help="gradients exchanged per step (%(default)s)")
    add("--set", metavar="FIELD=VALUE", nargs="*", default=[])
    return parser


if __name__ == "__main__":
    run(main, parser())
