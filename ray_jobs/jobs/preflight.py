"""Whether all is there that a job needs, before it runs: one table, each finding with its remedy."""

import argparse
from collections.abc import Callable
from typing import Any

import ray

from ray_jobs.cluster import placement, requirements
from ray_jobs.cluster.checks import as_dicts, look, table
from ray_jobs.cluster.connection import join
from ray_jobs.recipes import recipe
from ray_jobs.recipes.override import override
from ray_jobs.training import ingest
from ray_jobs.training.job import STEPS_IN_FLIGHT, step_bytes, worker_range
from stbir.catalogue.registry import open_catalogue
from stbir.data.shards import open_shards
from stbir.errors import InputError
from stbir.gallery.gallery import open_gallery
from stbir.model import checkpoint
from stbir.storage.folder import Folder

NEEDS = {
    "train": ("recipe", "shards", "out"),
    "embed": ("checkpoint", "shards or photos", "gallery"),
    "serve": ("checkpoint", "gallery"),
}


def preflight(args: argparse.Namespace) -> dict[str, Any]:
    """Look at everything, print the table. Raises InputError where something is missing."""
    for options in NEEDS[args.work]:
        given = [option for option in options.split(" or ") if getattr(args, option) is not None]
        if len(given) != 1:
            wrong = "give one of them" if given else "missing"
            raise InputError(f"--{options}: {wrong}; --for {args.work} needs {', '.join(NEEDS[args.work])}")
    parts = PARTS[args.work](args)
    if not ray.is_initialized():
        join()
    findings = look([*parts, *requirements.cluster()])
    print(table(findings))
    missing = [finding for finding in findings if finding.level == "missing"]
    if missing:
        raise InputError(f"{len(missing)} of {len(findings)} are missing; do what stands beneath each")
    return {"for": args.work, "findings": as_dicts(findings)}


def _train(args: argparse.Namespace) -> requirements.Checks:
    chosen = override(recipe(args.recipe), args.set)
    least, _ = worker_range(args.workers or "1", chosen.batch_size)
    yield "shards", lambda: _shards(args.shards, args.split or "train")
    # As the job does: of a cluster at zero there is nothing to look at.
    placement.await_room(least + ingest.DECODERS, least if args.gpu == "yes" else 0, args.wait)
    yield from requirements.training(
        chosen, least, ingest.DECODERS, args.gpu, step_bytes(chosen), STEPS_IN_FLIGHT
    )
    yield from requirements.place(Folder(args.out))


def _embed(args: argparse.Namespace) -> requirements.Checks:
    yield "checkpoint", lambda: _checkpoint(args.checkpoint)
    if args.photos:
        yield "photos", lambda: _photos(args.photos)
    else:
        yield "shards", lambda: _shards(args.shards, args.split)
    towers = placement.towers(_count(args.workers), args.gpu, args.wait)
    yield from requirements.embedding(towers, args.gpu)
    yield from requirements.place(Folder(args.gallery))


def _serve(args: argparse.Namespace) -> requirements.Checks:
    yield "checkpoint", lambda: _checkpoint(args.checkpoint)
    yield "gallery", lambda: _gallery(args.gallery, args.checkpoint)
    yield from requirements.serving(_count(args.workers) or 1, args.gpu)


PARTS: dict[str, Callable[[argparse.Namespace], requirements.Checks]] = {
    "train": _train,
    "embed": _embed,
    "serve": _serve,
}


def _shards(uri: str, splits: str | None) -> str:
    shards = open_shards(uri)
    photos = [shards.split(split).num_rows for split in (splits.split(",") if splits else [None])]
    return f"{sum(photos)} photos, {shards.manifest.digest[:19]}"


def _photos(text: str) -> str:
    fields = open_catalogue(text).fields.names
    return f"there are some, with {', '.join(fields) or 'no metadata'}"


def _count(workers: str | None) -> int | None:
    if workers is not None and not (workers.isdigit() and int(workers)):
        raise InputError(f"--workers: {workers!r} is not a number of actors; give 1 or more")
    return None if workers is None else int(workers)


def _checkpoint(uri: str) -> str:
    there, digest = checkpoint.pinned(uri)
    checkpoint.verify(there, digest)
    return f"whole, {digest[:19]}"


def _gallery(uri: str, made_by: str) -> str:
    gallery = open_gallery(uri, checkpoint.read_digest(made_by))
    return f"{gallery.count} photos, of that checkpoint"
