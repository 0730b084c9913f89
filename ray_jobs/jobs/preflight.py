"""The preflight command: runs the checks of a job and prints one table."""

import argparse
import math
from collections.abc import Callable
from typing import Any

import ray

from ray_jobs.cluster import placement, requirements
from ray_jobs.cluster.checks import run_checks, table
from ray_jobs.cluster.connection import init_ray
from ray_jobs.cluster.serving import read_replicas, serving_checks, total
from ray_jobs.recipes import recipe
from ray_jobs.recipes.available_classes import with_available_classes
from ray_jobs.recipes.override import override
from ray_jobs.training import ingest
from ray_jobs.training.job import STEPS_IN_FLIGHT, step_bytes, worker_range
from stbir.catalogue.registry import open_catalogue
from stbir.config import Recipe
from stbir.data.photo_index import build_photo_index, class_names
from stbir.data.shards import open_shards
from stbir.errors import InputError
from stbir.gallery.gallery import open_gallery
from stbir.model import checkpoint
from stbir.storage.folder import Folder

REQUIRED_OPTIONS = {
    "train": ("recipe", "shards", "out"),
    "embed": ("checkpoint", "shards or photos", "gallery"),
    "serve": ("checkpoint", "gallery"),
}


def preflight(args: argparse.Namespace) -> dict[str, Any]:
    """Run all checks of the job and print their table. Raises InputError if something is missing."""
    required = REQUIRED_OPTIONS[args.job]
    for options in required:
        present = [option for option in options.split(" or ") if getattr(args, option) is not None]
        if len(present) != 1:
            problem = "both are given" if present else "missing"
            needed = ", ".join(_option(each) for each in required)
            raise InputError(f"{_option(options)}: {problem}; --job {args.job} needs {needed}")
    checks = JOB_CHECKS[args.job](args)
    if not ray.is_initialized():
        init_ray()
    results = run_checks([*checks, *requirements.cluster()])
    print(table(results))
    missing = [result for result in results if result.level == "missing"]
    if missing:
        raise InputError(f"{len(missing)} of {len(results)} checks failed; see the remedy (→) of each")
    return {"for": args.job, "findings": [result.as_dict() for result in results]}


def _option(names: str) -> str:
    """As on the command line: `shards or photos` → `--shards or --photos`."""
    return " or ".join(f"--{name}" for name in names.split(" or "))


def _train(args: argparse.Namespace) -> requirements.Checks:
    chosen = override(recipe(args.recipe), args.set)
    workers, _ = worker_range(args.workers or "1", chosen.batch_size)
    split = args.split or "train"
    yield "shards", lambda: _shards(args.shards, split)
    yield "samples", lambda: _samples(args.shards, split.split(","), chosen)
    yield from requirements.weights(chosen.model)
    # As the job does: a cluster scaled to zero has no nodes to check yet.
    gpus = workers if args.gpu == "yes" else 0
    placement.wait_for_resources(workers + ingest.NUM_DECODERS, gpus, args.resource_timeout)
    yield from requirements.training(
        workers, ingest.NUM_DECODERS, args.gpu, step_bytes(chosen), STEPS_IN_FLIGHT
    )
    yield from requirements.storage(Folder(args.out))


def _embed(args: argparse.Namespace) -> requirements.Checks:
    yield "checkpoint", lambda: _checkpoint(args.checkpoint)
    if args.photos:
        yield "photos", lambda: _photos(args.photos)
    else:
        yield "shards", lambda: _shards(args.shards, args.split)
    num_encoders = placement.num_encoders(_worker_count(args.workers), args.gpu, args.resource_timeout)
    yield from requirements.embedding(num_encoders, args.gpu)
    yield from requirements.storage(Folder(args.gallery))


def _serve(args: argparse.Namespace) -> requirements.Checks:
    yield "checkpoint", lambda: _checkpoint(args.checkpoint)
    yield "gallery", lambda: _gallery(args.gallery, args.checkpoint)
    if args.workers is not None:
        raise InputError("--workers: not with --job serve; give --config the profile that has the replicas")
    replicas = read_replicas(args.config)
    cpus, gpus = total(replicas)
    largest = max(each.cpus for each in replicas)
    placement.wait_for_resources(
        math.ceil(cpus), math.ceil(gpus), args.resource_timeout, bundle_cpus=math.ceil(largest)
    )
    yield from serving_checks(replicas)


JOB_CHECKS: dict[str, Callable[[argparse.Namespace], requirements.Checks]] = {
    "train": _train,
    "embed": _embed,
    "serve": _serve,
}


def _shards(uri: str, splits: str | None) -> str:
    shards = open_shards(uri)
    photos = [shards.select_split(split).num_rows for split in (splits.split(",") if splits else [None])]
    return f"{sum(photos)} photos, {shards.manifest.digest[:19]}"


def _samples(uri: str, splits: list[str], recipe: Recipe) -> str:
    shards = open_shards(uri)
    recipe, _ = with_available_classes(recipe, shards, splits)
    has_labels = recipe.uses_classes and not recipe.num_clusters
    classes = class_names(shards, splits) if has_labels else []
    return requirements.samples(build_photo_index(shards, splits, classes), recipe)


def _photos(uri: str) -> str:
    fields = open_catalogue(uri).fields.names
    return f"found, with {', '.join(fields) or 'no metadata'}"


def _worker_count(workers: str | None) -> int | None:
    if workers is not None and not (workers.isdigit() and int(workers)):
        raise InputError(f"--workers: {workers!r} is not a number of actors; give 1 or more")
    return None if workers is None else int(workers)


def _checkpoint(uri: str) -> str:
    version, digest = checkpoint.resolve_pinned(uri)
    checkpoint.verify(version, digest)
    return f"complete, {digest[:19]}"


def _gallery(uri: str, checkpoint_uri: str) -> str:
    gallery = open_gallery(uri, checkpoint.read_digest(checkpoint_uri))
    return f"{gallery.count} photos, embedded with this checkpoint"
