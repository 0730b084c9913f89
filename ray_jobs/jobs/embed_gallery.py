"""Embed photos with a CHECKPOINT, and publish them as a GALLERY.

A re-run embeds new and changed photos only, and removes the photos that the catalogue no longer has.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

from ray_jobs.cli import check_error_rate, check_minimum, max_removed
from ray_jobs.cluster.connection import connect
from ray_jobs.cluster.metrics import EmbedMetrics
from ray_jobs.embedding.index_build import prepare_on_cluster
from ray_jobs.embedding.pipeline import EncoderPool, allocate_encoders, embed_catalogue
from ray_jobs.embedding.progress import Progress
from ray_jobs.embedding.recall_queries import catalogue_queries, read_queries
from stbir.catalogue.photo import Catalogue
from stbir.catalogue.registry import open_catalogue, open_shards_catalogue
from stbir.embedding.decode import DecodedPart, UnreadPart
from stbir.embedding.gallery_update import EmbeddingSpace, update_table
from stbir.embedding.removal_guard import RemovalGuard, check_removal
from stbir.errors import InputError
from stbir.gallery.arrays import Features
from stbir.gallery.gated_publish import index_and_publish
from stbir.gallery.index import plan_index
from stbir.gallery.metadata import read_metadata
from stbir.gallery.table_writer import delete_intermediate_versions, delete_photos, published_version
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from stbir.storage.lock import Lock, artifact_lock
from stbir.storage.manifest import read_manifest


def embed_gallery(args: argparse.Namespace) -> dict[str, Any]:
    """Embed, index, measure and publish. The published version stays until the last step."""
    _check_options(args)
    folder = Folder(args.gallery)
    if args.delete:
        return _delete(folder, args)
    args.checkpoint, digest = checkpoint.resolve_pinned(args.checkpoint)
    checkpoint.verify(args.checkpoint, digest)
    catalogue = _open_catalogue(args)
    with artifact_lock(folder, "gallery") as lock:
        guard = RemovalGuard(published_version(folder), max_removed(args))
        guard.check_listing(catalogue)
        connect()
        return _embed(catalogue, folder, digest, lock, guard, args)


def _embed(
    catalogue: Catalogue,
    folder: Folder,
    digest: str,
    lock: Lock,
    guard: RemovalGuard,
    args: argparse.Namespace,
) -> dict[str, Any]:
    model = checkpoint.read_recipe(args.checkpoint).model
    queries = read_queries(args.queries, model.width)
    num_workers, use_gpu = allocate_encoders(args.workers, args.gpu, args.resource_timeout)
    pool = EncoderPool(
        args.checkpoint, model.photo.preprocess, num_workers, use_gpu, args.batch, args.backend
    )
    metrics = EmbedMetrics(folder.uri)
    progress = Progress(lambda: guard.num_listed or catalogue.count(), metrics.update)

    def embed(parts: Iterator[DecodedPart | UnreadPart]) -> Iterator[tuple[DecodedPart, Features]]:
        for part in embed_catalogue(catalogue, parts, pool):
            yield part.decoded, part.encoded.vectors
            progress.add(part)

    def count_listed() -> int | None:
        num_listed = progress.close()
        metrics.write(folder)
        return num_listed

    space = EmbeddingSpace(digest, model.width)
    table = update_table(catalogue, folder, lock, space, guard, embed, args.max_error_rate, count_listed)
    plan = plan_index(table.num_rows, args.index_threshold)
    # Exact search has a recall of 1 with any queries.
    queries = queries | catalogue_queries(catalogue, args.checkpoint) if plan else {}
    summary = index_and_publish(
        folder, table.version, digest, plan, table.counts, lock, prepare=prepare_on_cluster, queries=queries
    )
    delete_intermediate_versions(folder, summary["version"])
    # The rate is unknown after a single part.
    rates = {"photos_per_s": round(progress.rate, 1) or None, "waited": round(progress.wait_share, 3)}
    encoding = {"batch": progress.batch_size, "backends": sorted(progress.backends)}
    return {**summary, **rates, **encoding, "not_taken_by_reason": table.not_taken}


def _delete(folder: Folder, args: argparse.Namespace) -> dict[str, Any]:
    """Publish the current version without the photos of --delete."""
    with artifact_lock(folder, "gallery") as lock:
        counts = read_manifest(folder, "gallery").counts
        dataset = delete_photos(folder, args.delete, partial(check_removal, max_removed=max_removed(args)))
        connect()
        num_rows, num_deleted = dataset.count_rows(), len(set(args.delete))
        counts = {**counts, "ok": num_rows, "new": 0, "changed": 0, "removed": num_deleted}
        plan, digest = plan_index(num_rows, args.index_threshold), read_metadata(dataset).checkpoint
        summary = index_and_publish(
            folder, dataset.version, digest, plan, counts, lock, prepare=prepare_on_cluster
        )
        delete_intermediate_versions(folder, summary["version"])
        return summary


def _open_catalogue(args: argparse.Namespace) -> Catalogue:
    if args.photos:
        return open_catalogue(args.photos, args.allow_scheme, args.column)
    return open_shards_catalogue(args.shards, args.split)


def _check_options(args: argparse.Namespace) -> None:
    check_error_rate(args)
    max_removed(args)
    check_minimum(args, 1, "batch", "workers", "index_threshold")
    sources = [name for name in ("shards", "photos", "delete") if getattr(args, name)]
    if len(sources) != 1:
        raise InputError("--shards, --photos, --delete: give exactly one of them")
    if args.split and not args.shards:
        raise InputError("--split: only shards have splits; leave it out")
    if not args.photos and (args.column or args.allow_scheme):
        raise InputError("--column, --allow-scheme: only a table has them; leave them out")
    if not args.delete and not args.checkpoint:
        raise InputError("--checkpoint: missing; give the folder that train.py wrote")
