"""Train a retriever from shards into a checkpoint: `python ray_jobs/train.py --help`.

The same command again goes on where the last good checkpoint stands. The library trains
(`stbir.training`); this file schedules, reports, evaluates and saves.
"""

import argparse
import sys
import time
from dataclasses import replace
from typing import Any

import ray
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_jobs.cluster import placement, requirements
from ray_jobs.cluster.checks import demand
from ray_jobs.cluster.connection import connect
from ray_jobs.recipes import recipe as named_recipe
from ray_jobs.recipes.override import override
from ray_jobs.training import ingest
from ray_jobs.training.class_labels import indexed, keep
from ray_jobs.training.job import STEPS_IN_FLIGHT, Job, step_bytes, steps_done, worker_range
from ray_jobs.training.profiling import refuse_missing
from ray_jobs.training.progress import printing, say_plan
from ray_jobs.training.trainer import RAY, fit
from ray_jobs.training.worker import save
from stbir.config import Recipe
from stbir.config.recipe_json import to_json
from stbir.data.shards import Shards, open_shards
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.builder import build, resolve
from stbir.storage.folder import Folder
from stbir.storage.manifest import NAME as MANIFEST
from stbir.storage.manifest import read_manifest


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Plan, start or go on, and wait; the summary of the run."""
    recipe = override(named_recipe(args.recipe), args.set)
    workers = worker_range(args.workers, recipe.batch_size)
    if args.save_every is not None and args.save_every < 1:
        raise InputError(f"--save-every: {args.save_every} is not at least 1; leave it out for each epoch")
    refuse_missing(args.profile)
    shards = open_shards(args.shards)
    splits = args.split.split(",")
    aux = [open_shards(uri) for uri in args.aux_shards]
    photos, classes = indexed(recipe, shards, splits, aux, args.out)
    connect()
    gpu = _room(args, recipe, workers)
    workers = workers if gpu else _leaving_some(workers)
    job = Job(
        recipe,
        photos,
        classes,
        Folder(args.out).uri,
        shards.folder.uri,
        [each.manifest.digest for each in (shards, *aux)],
        _validation_split(shards, splits, args.validate),
        _queue(),
        args.save_every,
        args.profile,
        gpu,
    )
    _begin(job)
    done = steps_done(job.out)
    say_plan(job, done)
    start = time.perf_counter()
    if done < sum(job.steps):
        with printing(job.progress):
            fit(job, workers, args.max_failures)
        Folder(job.out).remove(RAY)
    return _summary(job) | {"seconds": round(time.perf_counter() - start)}


def _summary(job: Job) -> dict[str, Any]:
    manifest = read_manifest(Folder(job.out), "checkpoint")
    return {"checkpoint": job.out, "digest": manifest.digest, "recipe": job.recipe.name, **manifest.counts}


def _room(args: argparse.Namespace, recipe: Recipe, workers: tuple[int, int]) -> bool:
    """The preflight of this command; whether the workers get GPUs. Raises InputError for what is missing."""
    least, most = workers
    placement.await_room(least + ingest.DECODERS, least if args.gpu == "yes" else 0, args.wait)
    needed = requirements.training(
        recipe, least, ingest.DECODERS, args.gpu, step_bytes(recipe), STEPS_IN_FLIGHT
    )
    demand([*needed, *requirements.place(Folder(args.out))])
    gpu = requirements.uses_gpus(least, args.gpu)
    count = str(least) if least == most else f"{least} to {most}"
    print(f"training on {count} {'GPUs' if gpu else 'CPU workers'}", file=sys.stderr)
    return gpu


def _leaving_some(workers: tuple[int, int]) -> tuple[int, int]:
    """No more workers than leave CPUs to decode with: without any, training would wait for ever."""
    least, most = workers
    return least, max(least, min(most, int(ray.cluster_resources().get("CPU", 0)) - ingest.DECODERS))


def _queue() -> Queue:
    """For progress, on this very node: another one may be lost, and what lies there with it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


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
        if job.recipe.uses_classes and job.recipe.num_clusters:
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
    return to_json(replace(recipe, model=model, chunk_size=None))
