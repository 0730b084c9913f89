"""Train a retriever from shards into a checkpoint: `python ray_jobs/train.py --help`.

The same command again goes on where the last good checkpoint stands. The library trains
(`stbir.training`); this file schedules, reports, evaluates and saves.
"""

import argparse
import functools
import os
import sys
import time
from dataclasses import replace
from typing import Any

import ray
from ray.data import ExecutionOptions
from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.util.queue import Queue

from ray_jobs import feed
from ray_jobs.categories import indexed, keep
from ray_jobs.command import Failed, connect, run
from ray_jobs.override import override
from ray_jobs.progress import printing, say_plan
from ray_jobs.recipes import choice
from ray_jobs.recipes import recipe as named_recipe
from ray_jobs.train_job import ENVIRONMENT, Job, steps_done
from ray_jobs.train_worker import save
from stbir.config import Recipe
from stbir.data.manifest import NAME as MANIFEST
from stbir.data.manifest import read_manifest
from stbir.data.shards import Shards, open_shards
from stbir.data.storage import Folder
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.builder import build, resolve
from stbir.recipe_json import to_json

RAY = ".ray"  # what Ray Train keeps of a run while it lasts; nothing is resumed from it


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Plan, start or go on, and wait; the summary of the run."""
    recipe = override(named_recipe(args.recipe), args.set)
    if args.workers < 1 or recipe.batch % args.workers:
        raise InputError(f"--workers: batch {recipe.batch} does not divide by {args.workers}; --set batch=N")
    if args.save_every is not None and args.save_every < 1:
        raise InputError(f"--save-every: {args.save_every} is not at least 1; leave it out for each epoch")
    shards = open_shards(args.shards)
    splits = args.split.split(",")
    extra = [open_shards(uri) for uri in args.extra_shards]
    photos, classes = indexed(recipe, shards, splits, extra, args.out)
    connect()
    gpu = _resources(args.workers, args.gpu)
    job = Job(
        recipe,
        photos,
        classes,
        Folder(args.out).uri,
        shards.folder.uri,
        [each.manifest.digest for each in (shards, *extra)],
        _validation_split(shards, splits, args.validate),
        Queue(actor_options={"num_cpus": 0}),
        args.save_every,
    )
    _begin(job)
    done = steps_done(job.out)
    say_plan(job, done)
    start = time.perf_counter()
    if done < sum(job.steps):
        with printing(job.progress):
            _fit(_trainer(job, args.workers, gpu, args.max_failures))
        Folder(job.out).remove(RAY)
    return _summary(job) | {"seconds": round(time.perf_counter() - start)}


def _fit(trainer: TorchTrainer) -> None:
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        reason = str(error).strip().splitlines()[-1]
        raise Failed(f"{reason}; the same command goes on from the last good checkpoint", {}) from error
    if result.return_value:
        raise Failed(str(result.return_value), {})


def _summary(job: Job) -> dict[str, Any]:
    manifest = read_manifest(Folder(job.out), "checkpoint")
    return {"checkpoint": job.out, "digest": manifest.digest, "recipe": job.recipe.name, **manifest.counts}


def _resources(workers: int, gpu: str) -> bool:
    """Whether the workers get GPUs. Raises InputError where what is at hand cannot hold them.

    A cluster that a job was submitted to may grow from nothing: there it is said, and waited for.
    """
    there = ray.cluster_resources()
    cpus, gpus, needed = int(there.get("CPU", 0)), int(there.get("GPU", 0)), workers + feed.DECODERS
    if cpus < needed:
        _lack(f"--workers: {workers} and the decoding need {needed} CPUs; the cluster has {cpus}")
    if gpu == "yes" and gpus < workers:
        _lack(f"--gpu: {workers} workers need {workers} GPUs; the cluster has {gpus}")
    wanted = gpu == "yes" or (gpu == "auto" and gpus >= workers)
    print(f"training on {workers} {'GPUs' if wanted else 'CPU workers'}", file=sys.stderr)
    return wanted


def _lack(what: str) -> None:
    if "RAY_ADDRESS" not in os.environ:
        raise InputError(what)
    print(f"{what}; waiting for it to grow", file=sys.stderr)


def _validation_split(shards: Shards, splits: list[str], wanted: str | None) -> str | None:
    there = set(shards.index["split"].to_pylist())
    if wanted is not None:
        shards.split(wanted)
        return wanted
    return "val" if "val" in there and "val" not in splits else None


def _begin(job: Job) -> None:
    """Make sure that --out holds a checkpoint of this very run: the one to go on from, or step 0.

    Weights are thus loaded, and refused, here and once; workers read what lies at --out.
    """
    folder = Folder(job.out)
    if not folder.exists(MANIFEST):
        retriever = build(job.recipe.model, job.recipe.seed)
        if job.recipe.uses_classes and job.recipe.clusters:
            keep(job.photos, job.out)
        save(job, retriever, done=0, training=None)
        return
    manifest = read_manifest(folder, "checkpoint")
    details = (manifest.details.get("photos"), manifest.details.get("data"))
    same_recipe = _identity(checkpoint.read_recipe(job.out)) == _identity(job.recipe)
    if not same_recipe or details != (job.photos.digest, job.data):
        raise InputError(
            f"--out {job.out}: holds a checkpoint of other photos or another recipe; choose another --out,"
            " or give the same --recipe, --set, --shards, --split and --extra-shards to go on"
        )


def _identity(recipe: Recipe) -> str:
    """What must not change for a run to go on. Its weights are learnt further, wherever they once lay; and
    chunks, which memory may ask for on the way, have the gradients of the whole batch."""
    model = resolve(recipe.model)
    model = replace(
        model,
        photo=replace(model.photo, weights=None),
        sketch=model.sketch and replace(model.sketch, weights=None),
        text=replace(model.text, weights=None),
    )
    return to_json(replace(recipe, model=model, chunk=None))


def _trainer(job: Job, workers: int, gpu: bool, max_failures: int) -> TorchTrainer:
    def remaining() -> ray.data.Dataset:
        """Asked for anew whenever workers start, so that they go on from the last good checkpoint."""
        return feed.stream(job.photos, job.recipe, steps_done(job.out), workers)

    def on_worker() -> str | None:
        """Ray Train's controller, which only hands this on, is spared the import: seconds a run."""
        from ray_jobs.train_worker import work

        return work(job)

    feed.keep_order()
    return TorchTrainer(
        on_worker,
        datasets={"train": remaining},
        # Ray Train takes these from here, whatever the data set's own context says.
        dataset_config=DataConfig(
            execution_options=ExecutionOptions(preserve_order=True), enable_shard_locality=False
        ),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name=f"ray-{int(time.time())}",
            storage_path=f"{job.out}/{RAY}",
            worker_runtime_env={"env_vars": ENVIRONMENT},
            failure_config=FailureConfig(max_failures=max_failures, max_preemption_failures=-1),
        ),
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("train.py", description=(__doc__ or "").split(":")[0])
    add = parser.add_argument
    add("--recipe", required=True, help=f"one of {choice()}")
    add("--shards", required=True, metavar="URI", help="made by prepare_shards.py")
    add("--out", required=True, metavar="URI", help="checkpoint; the same again goes on")
    add("--workers", type=int, default=1, help="training workers: GPUs, or processes on CPUs")
    add("--gpu", choices=["auto", "yes", "no"], default="auto", help="a GPU a worker; auto: if there now")
    add("--split", default="train", help="splits to train on, e.g. train,val")
    add("--validate", metavar="SPLIT", help="split to check every epoch; default: val if there")
    several = functools.partial(add, nargs="*", action="extend", default=[])
    several("--extra-shards", metavar="URI", help="other data sets, for the stages that take them")
    several("--set", metavar="FIELD=VALUE", help="e.g. stages.sketch.epochs=2 batch=32")
    add("--save-every", type=int, metavar="STEPS", help="save within epochs too; default: at their ends")
    add("--max-failures", type=int, default=3, help="how many lost workers to survive")
    return parser


if __name__ == "__main__":
    run(main, parser())
