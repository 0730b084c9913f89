"""Embed photos with a CHECKPOINT, and publish them as a GALLERY.

A re-run embeds new and changed photos only, and removes the photos that the catalogue no longer has.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import lance
import pyarrow as pa

from ray_jobs.cli import check_error_rate, check_minimum, max_removed
from ray_jobs.cluster.connection import connect
from ray_jobs.cluster.metrics import EmbedMetrics
from ray_jobs.embedding.index_build import index_and_publish
from ray_jobs.embedding.pipeline import (
    EmbeddedPart,
    EncoderPool,
    allocate_encoders,
    embed_catalogue,
    to_table,
)
from ray_jobs.embedding.progress import Progress
from ray_jobs.embedding.recall_queries import catalogue_queries, read_queries
from stbir.catalogue.folder import FolderCatalogue
from stbir.catalogue.photo import NOT_TAKEN, Catalogue
from stbir.catalogue.registry import open_catalogue
from stbir.catalogue.shards import ShardsCatalogue
from stbir.data.shard_writer import QUARANTINE, write_quarantine
from stbir.data.shards import open_shards
from stbir.data.validation import Fault
from stbir.embedding.removal_guard import RemovalGuard, check_removal
from stbir.errors import InputError, JobFailedError
from stbir.gallery.background_writer import BackgroundWriter
from stbir.gallery.existing_rows import ExistingRows, count_changes, read_existing_rows
from stbir.gallery.gallery import read_metadata, schema
from stbir.gallery.index import plan_index
from stbir.gallery.table_writer import (
    TableWriter,
    delete_intermediate_versions,
    delete_photos,
    is_compatible,
    open_writer,
    published_version,
)
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from stbir.storage.lock import Lock, artifact_lock
from stbir.storage.manifest import read_manifest

log = logging.getLogger(__name__)
_MAX_LOGGED_FAULTS = 10


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
    pool = EncoderPool(args.checkpoint, model.photo.preprocess, num_workers, use_gpu, args.batch)
    columns = schema(model.width, catalogue.fields)
    published, table = published_version(folder), open_writer(folder, columns, digest)
    metrics = EmbedMetrics(folder.uri)
    progress = Progress(lambda: guard.num_listed or catalogue.count(), metrics.update)
    rows = read_existing_rows(table.dataset, catalogue.fields.names)
    parts, writer = embed_catalogue(catalogue, rows, pool), BackgroundWriter(table, lock)
    faults = _append(parts, columns, writer, rows, guard, progress)
    counts = progress.counts.summary()
    _check_listing(catalogue, progress.close(), counts)
    metrics.write(folder)
    not_taken = _count_not_taken(faults)
    _check_faults(folder, faults, counts, args.max_error_rate)
    guard.check()
    lock.check()
    table.delete(rows.stale_row_ids())
    _check_row_count(table, counts["embedded"] + rows.num_retained, counts)
    counts |= _count_changes(published, table, digest, catalogue)
    plan = plan_index(table.dataset.count_rows(), args.index_threshold)
    # Exact search has a recall of 1 with any queries.
    queries = queries | catalogue_queries(catalogue, args.checkpoint) if plan else {}
    summary = index_and_publish(folder, table.dataset.version, digest, plan, counts, lock, queries=queries)
    delete_intermediate_versions(folder, summary["version"])
    rates = {"photos_per_s": round(progress.rate, 1), "waited": round(progress.wait_share, 3)}
    return {**summary, **rates, "batch": progress.batch_size, "not_taken_by_reason": not_taken}


def _append(
    parts: Iterator[EmbeddedPart],
    columns: pa.Schema,
    writer: BackgroundWriter,
    rows: ExistingRows,
    guard: RemovalGuard,
    progress: Progress,
) -> list[Fault]:
    """Append the embedded photos to the table; returns the faults of the others."""
    faults: list[Fault] = []
    with writer:
        for part in parts:
            writer.add(to_table(part, columns))
            rows.retain(part.decoded.existing)
            rows.retain_newest([fault.photo_id for fault in part.decoded.failed])
            faults += part.decoded.faults
            guard.add(part.decoded.photo_ids_in_catalogue)
            progress.add(part)
    return faults


def _delete(folder: Folder, args: argparse.Namespace) -> dict[str, Any]:
    """Publish the current version without the photos of --delete."""
    with artifact_lock(folder, "gallery") as lock:
        counts = read_manifest(folder, "gallery").counts
        dataset = delete_photos(folder, args.delete, partial(check_removal, max_removed=max_removed(args)))
        connect()
        num_rows, num_deleted = dataset.count_rows(), len(set(args.delete))
        counts = {**counts, "ok": num_rows, "new": 0, "changed": 0, "removed": num_deleted}
        plan, digest = plan_index(num_rows, args.index_threshold), read_metadata(dataset).checkpoint
        summary = index_and_publish(folder, dataset.version, digest, plan, counts, lock)
        delete_intermediate_versions(folder, summary["version"])
        return summary


def _open_catalogue(args: argparse.Namespace) -> Catalogue:
    if args.photos:
        return open_catalogue(args.photos, args.allow_scheme, args.column)
    catalogue = ShardsCatalogue(open_shards(args.shards), args.split)
    if next(catalogue.parts(), None) is None:
        catalogue.count()  # raises an error that names the splits with photos
    return catalogue


def _count_changes(
    published: lance.LanceDataset | None, table: TableWriter, digest: str, catalogue: Catalogue
) -> dict[str, int]:
    """Changes since the published version. If another checkpoint made that one, all photos are new."""
    columns = catalogue.fields.names
    if published is not None and not is_compatible(published, table.dataset.schema, digest):
        published = None
    before, after = read_existing_rows(published, columns), read_existing_rows(table.dataset, columns)
    counts = count_changes(before, after)
    log.info("%(new)d new, %(changed)d changed, %(removed)d removed", counts)
    return counts


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


def _check_listing(catalogue: Catalogue, listed: int | None, counts: dict[str, int]) -> None:
    """Compare the numbers of files that were counted and read. A folder may grow during the job; files of
    photos do not change, so that a difference means lost photos. Raises JobFailedError."""
    if listed is None:
        return
    counts["listed"] = listed
    num_read = counts["in"] + counts["not_taken"]
    if listed != num_read:
        difference = f"{num_read} photos were read, {listed} were listed"
        if not isinstance(catalogue, FolderCatalogue):
            raise JobFailedError(f"{difference}; not published, run again", counts)
        log.warning("%s: the folder has changed meanwhile; run again", difference)


def _check_faults(folder: Folder, faults: list[Fault], counts: dict[str, int], max_error_rate: float) -> None:
    """Write the quarantine. Raises JobFailedError for too many errors, InputError if there is no photo."""
    write_quarantine(folder, faults)
    errors = [fault for fault in faults if fault.reason not in NOT_TAKEN]
    for fault in errors[:_MAX_LOGGED_FAULTS]:
        log.warning("not embedded: %s: %s", fault.photo_id, fault.detail or fault.reason)
    log.info(
        "in %(in)d = embedded %(embedded)d + already there %(already_there)d"
        " + quarantined %(quarantined)d + failed %(failed)d; not photos: %(not_taken)d",
        counts,
    )
    log_path = f"see {folder.uri}/{QUARANTINE}; not published"
    if not counts["in"]:
        raise InputError(f"--photos: none of the {counts['not_taken']} listed files is a photo, {log_path}")
    if len(errors) > max_error_rate * counts["in"] or not counts["ok"]:
        by_reason = Counter(fault.reason for fault in errors).most_common()
        reasons = ", ".join(f"{n} x {reason}" for reason, n in by_reason)
        message = f"{len(errors)} of {counts['in']} photos cannot be embedded ({reasons})"
        raise JobFailedError(f"{message}, {log_path}", counts)


def _count_not_taken(faults: list[Fault]) -> dict[str, dict[str, int]]:
    """The number of listed files that are no photos, by reason and kind of file; logs it."""
    counts: dict[str, dict[str, int]] = {}
    for (reason, kind), count in Counter(
        (fault.reason, fault.detail or "") for fault in faults if fault.reason in NOT_TAKEN
    ).most_common():
        counts.setdefault(reason, {})[kind] = count
    for reason, kinds in counts.items():
        log.info("%s: %s", reason, ", ".join(f"{count} {kind}".strip() for kind, count in kinds.items()))
    return counts


def _check_row_count(table: TableWriter, expected: int, counts: dict[str, int]) -> None:
    num_rows = table.dataset.count_rows()
    if num_rows != expected:
        raise JobFailedError(f"the table has {num_rows} rows instead of {expected}; not published", counts)
