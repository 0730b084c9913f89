"""The train command: plans a training run, starts or resumes it, and returns its summary."""

import argparse
import os
import sys
import time
from dataclasses import replace
from typing import Any

import ray
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_jobs.cluster import placement, requirements
from ray_jobs.cluster.checks import enforce
from ray_jobs.cluster.connection import connect
from ray_jobs.recipes import is_finetuning
from ray_jobs.recipes import recipe as named_recipe
from ray_jobs.recipes.available_classes import with_available_classes
from ray_jobs.recipes.finetune import with_model
from ray_jobs.recipes.override import override
from ray_jobs.training import ingest
from ray_jobs.training.class_labels import index_photos_with_labels, save_clusters
from ray_jobs.training.job import (
    STEPS_IN_FLIGHT,
    Job,
    last_checkpoint,
    num_completed_steps,
    step_bytes,
    worker_range,
)
from ray_jobs.training.profiling import check_profiler
from ray_jobs.training.progress import print_plan, print_progress
from ray_jobs.training.selection import published_scores, save_checkpoint
from ray_jobs.training.tracking import tracking_environment
from ray_jobs.training.trainer import RAY_FOLDER, fit
from ray_jobs.training.validation import choose_validation
from stbir.config import Recipe
from stbir.config.recipe_json import to_json
from stbir.data.shards import Shards, open_shards
from stbir.embedding.calibration import calibrate_checkpoint
from stbir.embedding.match_probability import MATCH, MIN_QUERIES, fit_match_curves, store_match_curves
from stbir.embedding.queries import embed
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.builder import build_retriever, resolve
from stbir.model.initialization import build_from_checkpoint
from stbir.model.retriever import Retriever
from stbir.storage.folder import Folder
from stbir.storage.lock import Lock, artifact_lock
from stbir.storage.manifest import MANIFEST_FILE, read_manifest
from stbir.training.sample_checks import require_strokes


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Start or resume the run and wait for it. Raises InputError for invalid arguments."""
    recipe = _recipe(args)
    workers = worker_range(args.workers, recipe.batch_size)
    interval = args.checkpoint_interval
    if interval is not None and interval < 1:
        raise InputError(f"--checkpoint-every: {interval} is less than 1; omit it to save only after epochs")
    check_profiler(args.profile)
    tracking_environment(os.environ)  # before Ray starts
    data = [open_shards(uri) for uri in (args.shards, *args.aux_shards)]
    recipe, note = with_available_classes(recipe, data[0], args.train_split.split(","))
    if note:
        print(note, file=sys.stderr)
    with artifact_lock(Folder(args.out), "checkpoint") as lock:
        return _train(args, recipe, workers, data, lock)


def _recipe(args: argparse.Namespace) -> Recipe:
    """The recipe with the model of --init-from, if it continues one, and with the fields of --set."""
    recipe = named_recipe(args.recipe)
    if args.init_from and is_finetuning(args.recipe):
        recipe = with_model(recipe, checkpoint.read_recipe(args.init_from).model)
    return override(recipe, args.set)


def _train(
    args: argparse.Namespace, recipe: Recipe, workers: tuple[int, int], data: list[Shards], lock: Lock
) -> dict[str, Any]:
    require_strokes(recipe, [each.manifest.counts for each in data])
    shards, *aux = data
    splits = args.train_split.split(",")
    validation = choose_validation(shards, splits, args.val_split, args.select)
    held_out = validation is not None and validation.held_out
    photos, classes = index_photos_with_labels(recipe, shards, splits, aux, args.out, held_out)
    # Before Ray starts, since weights may be unusable.
    initial = build_initial_model(recipe, args.out, args.init_from)
    connect()
    gpu = _check_resources(args, recipe, workers)
    enforce([("samples", lambda: requirements.samples(photos, recipe))])
    enforce([("amount of data", lambda: requirements.enough_data(photos, recipe, bool(args.init_from)))])
    job = Job(
        recipe,
        photos,
        classes,
        out=Folder(args.out).uri,
        data_digests=[each.manifest.digest for each in data],
        validation=validation,
        progress=_create_queue(),
        lock=lock,
        select=args.select,
        checkpoint_interval=args.checkpoint_interval,
        init_digest=checkpoint.read_digest(args.init_from) if args.init_from else "",
        profiler=args.profile,
        gpu=gpu,
        tracking=tracking_environment(os.environ),
    )
    initialize_checkpoint(job, initial)
    num_steps = num_completed_steps(job.out)
    print_plan(job, num_steps)
    start = time.perf_counter()
    if num_steps < sum(job.steps):
        with print_progress(job.progress):
            fit(job, workers if gpu else _reserve_decode_cpus(workers), args.max_failures)
        Folder(job.out).remove(RAY_FOLDER)
    _calibrate(job)
    _measure_match(job)
    return _summary(job) | {"seconds": round(time.perf_counter() - start)}


def _calibrate(job: Job) -> None:
    """Calibrate the published checkpoint in this process, if the recipe does and it is not yet.

    The checkpoint of the last step stays as it is, for resuming.
    """
    if job.recipe.calibrate and not checkpoint.read_recipe(job.out).model.hubness:
        job.lock.check()
        print("calibrating the published checkpoint", file=sys.stderr)
        calibrate_checkpoint(job.out, job.photos, job.data_digests, job.out)


def _measure_match(job: Job) -> None:
    """Store the probability of a match, measured on the validation photos, if it is not stored yet."""
    if job.validation is None or MATCH in read_manifest(Folder(job.out), "checkpoint").details:
        return
    curves = fit_match_curves(embed(checkpoint.load(job.out), job.validation.rows()))
    job.lock.check()
    store_match_curves(job.out, curves)
    kinds = ", ".join(curves) or f"no kind of query, as none has {MIN_QUERIES} validation queries"
    print(f"measured the probability of a match by {kinds}", file=sys.stderr)


def _summary(job: Job) -> dict[str, Any]:
    """The published checkpoint: why it is that one stands in `published`; the counts are of the whole run."""
    published = read_manifest(Folder(job.out), "checkpoint")
    last = read_manifest(last_checkpoint(job.out), "checkpoint")
    summary = {"checkpoint": job.out, "digest": published.digest, "recipe": job.recipe.name, **last.counts}
    scores = published_scores(job)
    reason = {"select": job.select, **scores} if scores else {"select": "last"}
    return summary | {"published": {"step": published.counts["steps"], **reason}}


def _check_resources(args: argparse.Namespace, recipe: Recipe, workers: tuple[int, int]) -> bool:
    """Run the preflight checks. Returns whether workers get GPUs. Raises InputError for a failed check."""
    minimum, maximum = workers
    gpus = minimum if args.gpu == "yes" else 0
    placement.wait_for_resources(minimum + ingest.NUM_DECODERS, gpus, args.resource_timeout)
    checks = requirements.training(
        minimum, ingest.NUM_DECODERS, args.gpu, step_bytes(recipe), STEPS_IN_FLIGHT
    )
    enforce([*checks, *requirements.storage(Folder(args.out))])
    gpu = requirements.uses_gpus(minimum, args.gpu)
    count = str(minimum) if minimum == maximum else f"{minimum} to {maximum}"
    print(f"training on {count} {'GPUs' if gpu else 'CPU workers'}", file=sys.stderr)
    return gpu


def _reserve_decode_cpus(workers: tuple[int, int]) -> tuple[int, int]:
    """Limit the workers so that CPUs remain for decoding; without any, training would wait for ever."""
    minimum, maximum = workers
    num_free = int(ray.cluster_resources().get("CPU", 0)) - ingest.NUM_DECODERS
    return minimum, max(minimum, min(maximum, num_free))


def _create_queue() -> Queue:
    """The progress queue, on this node: if another node held it, its loss would end the run."""
    this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": this_node})


def build_initial_model(recipe: Recipe, out: str, init_from: str | None = None) -> Retriever | None:
    """The model of step 0; None if --out holds a checkpoint to resume from.

    `init_from`: a checkpoint with the weights of the encoders.

    Pretrained weights are loaded and checked only here; the workers read the checkpoint.
    """
    if Folder(out).exists(MANIFEST_FILE):
        return None
    if init_from:
        return build_from_checkpoint(recipe.model, init_from, recipe.seed)
    return build_retriever(recipe.model, recipe.seed)


def initialize_checkpoint(job: Job, initial: Retriever | None) -> None:
    """Save `initial` as step 0 at --out. None resumes: raises InputError if --out holds another run."""
    if initial is not None:
        if job.recipe.uses_classes and job.recipe.num_clusters:
            save_clusters(job.photos, job.out)
        save_checkpoint(job, initial, num_steps=0, training=None)
        return
    manifest = read_manifest(Folder(job.out), "checkpoint")
    data = (manifest.details.get("photos"), manifest.details.get("data"))
    same_recipe = resume_key(checkpoint.read_recipe(job.out)) == resume_key(job.recipe)
    if manifest.details.get("init_from", "") != job.init_digest:
        raise InputError(f"--init-from: {job.out} started from another checkpoint; choose another --out")
    if not same_recipe or data != (job.photos.digest, job.data_digests):
        raise InputError(
            f"--out {job.out}: contains a checkpoint of other photos or another recipe; choose another --out,"
            " or give the same --recipe, --set, --shards, --train-split and --aux-shards to resume"
        )


def resume_key(recipe: Recipe) -> str:
    """The fields of a recipe that a resumed run must share, as JSON.

    Excluded are the sources of pretrained weights, which the checkpoint replaces, `chunk_size`, which does
    not change gradients, and the hubness correction, which calibration adds to the published checkpoint.
    """
    model = resolve(recipe.model).without_hubness().without_weights()
    return to_json(replace(recipe, model=model, chunk_size=None))
