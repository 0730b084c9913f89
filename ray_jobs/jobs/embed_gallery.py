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
from stbir.config import Preprocess
from stbir.embedding.catalogue_share import CatalogueShare
from stbir.embedding.decode import DecodedPart, UnreadPart
from stbir.embedding.gallery_update import EmbeddingSpace, append_share, plan_update, update_table
from stbir.embedding.listing import Listing
from stbir.embedding.removal_guard import check_removal
from stbir.errors import InputError
from stbir.gallery.arrays import Features
from stbir.gallery.gated_publish import index_and_publish
from stbir.gallery.index import plan_index
from stbir.gallery.metadata import read_metadata
from stbir.gallery.store import open_store
from stbir.gallery.table_writer import delete_intermediate_versions, delete_photos
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from stbir.storage.lock import artifact_lock
from stbir.storage.manifest import read_manifest
from stbir.storage.part_lock import part_lock


def embed_gallery(args: argparse.Namespace) -> dict[str, Any]:
    """Embed, index, measure and publish. The published version stays until the last step."""
    share = _check_options(args)
    folder = Folder(args.gallery)
    if args.delete:
        return _delete(folder, args)
    args.checkpoint, digest = checkpoint.resolve_pinned(args.checkpoint)
    checkpoint.verify(args.checkpoint, digest)
    catalogue = _open_catalogue(args)
    model = checkpoint.read_recipe(args.checkpoint).model
    space = EmbeddingSpace(digest, model.width)
    if share is not None:
        return _embed_share(share, catalogue, space, model.photo.preprocess, folder, args)
    queries = read_queries(args.queries, space.dim)
    with artifact_lock(folder, "gallery") as lock:
        update = plan_update(catalogue, folder, space, max_removed(args))
        connect()
        job = _EmbeddingJob(catalogue, update.listing.num_photos, model.photo.preprocess, folder, args)
        table = update_table(update, folder, lock, job.embed, args.max_error_rate)
        plan = plan_index(table.num_rows, args.index_threshold)
        # Exact search has a recall of 1 with any queries.
        queries = queries | catalogue_queries(catalogue, args.checkpoint) if plan else {}
        summary = index_and_publish(
            folder,
            table.version,
            digest,
            plan,
            table.counts,
            lock,
            prepare=prepare_on_cluster,
            queries=queries,
        )
        delete_intermediate_versions(folder, summary["version"])
        return {**summary, **job.summary(), "not_taken_by_reason": table.not_taken}


def _embed_share(
    share: CatalogueShare,
    catalogue: Catalogue,
    space: EmbeddingSpace,
    preprocess: Preprocess,
    folder: Folder,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Append the photos of --part to the table, beside drivers of other parts. Publishes nothing."""
    with part_lock(folder, "gallery", share.name) as lock:
        listing = Listing(catalogue, share)
        connect()
        job = _EmbeddingJob(catalogue, listing.num_photos, preprocess, folder, args)
        counts = append_share(listing, share, space, folder, lock, job.embed, args.max_error_rate)
        return {"gallery": folder.uri, "part": args.part, **counts, **job.summary()}


class _EmbeddingJob:
    """The encoders of a job on the cluster, and its progress."""

    def __init__(
        self,
        catalogue: Catalogue,
        num_photos: int,
        preprocess: Preprocess,
        folder: Folder,
        args: argparse.Namespace,
    ) -> None:
        """Waits for the resources of the encoders. Raises InputError as `allocate_encoders`."""
        num_workers, use_gpu = allocate_encoders(args.workers, args.gpu, args.resource_timeout)
        self._catalogue, self._folder = catalogue, folder
        self._pool = EncoderPool(args.checkpoint, preprocess, num_workers, use_gpu, args.batch, args.backend)
        self._metrics = EmbedMetrics(folder.uri)
        self._progress = Progress(num_photos, self._metrics.update)

    def embed(self, parts: Iterator[DecodedPart | UnreadPart]) -> Iterator[tuple[DecodedPart, Features]]:
        """The parts with the vectors (B, D) of their new photos."""
        for part in embed_catalogue(self._catalogue, parts, self._pool):
            yield part.decoded, part.encoded.vectors
            self._progress.add(part)
        self._progress.close()
        self._metrics.write(self._folder)

    def summary(self) -> dict[str, Any]:
        """Rates, which are unknown after a single part, and how photos were encoded."""
        progress = self._progress
        return {
            "photos_per_s": round(progress.rate, 1) or None,
            "waited": round(progress.wait_share, 3),
            "batch": progress.batch_size,
            "backends": sorted(progress.backends),
        }


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


def _check_options(args: argparse.Namespace) -> CatalogueShare | None:
    """The share of --part. Raises InputError for options that do not fit each other."""
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
    if args.part and args.delete:
        raise InputError("--part: photos are deleted by one driver; leave it out")
    share = CatalogueShare.parse(args.part) if args.part else None
    if share and not open_store(Folder(args.gallery)).allows_concurrent_writers:
        raise InputError(
            f"--part: {args.gallery} takes one writer at a time; leave it out, and raise --workers"
        )
    return share
