"""Manage the versions of a GALLERY: list, tag, roll back, optimize, prune, export, import and copy."""

import argparse
import functools
import logging
from collections.abc import Callable, Collection
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pyarrow as pa

from ray_jobs.cli import max_removed
from ray_jobs.cluster.connection import connect
from ray_jobs.embedding.index_build import prepare_on_cluster
from ray_jobs.embedding.recall_queries import read_queries
from stbir.embedding.removal_guard import check_photo_ids
from stbir.errors import InputError
from stbir.gallery import export_import, versions
from stbir.gallery.arrays import Features
from stbir.gallery.filters import filterable_columns
from stbir.gallery.gallery import open_table
from stbir.gallery.gated_publish import index_and_publish
from stbir.gallery.index import plan_index
from stbir.gallery.metadata import read_metadata
from stbir.gallery.table import PUBLISHED, VECTOR
from stbir.gallery.table_writer import published_version
from stbir.storage.folder import Folder
from stbir.storage.lock import Lock, artifact_lock
from stbir.storage.manifest import MANIFEST_FILE, Manifest, read_manifest
from stbir.storage.milvus_server import SCHEME as MILVUS
from stbir.storage.uri import uri_scheme

log = logging.getLogger(__name__)


def exclusive(action: Callable[[argparse.Namespace, Lock], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Run the action with the gallery's writer lock, which the action checks before it writes."""

    @functools.wraps(action)
    def locked(args: argparse.Namespace) -> dict[str, Any]:
        with artifact_lock(Folder(args.gallery), "gallery") as lock:
            return action(args, lock)

    return locked


def list_versions(args: argparse.Namespace) -> dict[str, Any]:
    """List all published versions, newest first."""
    listed = versions.list_versions(Folder(args.gallery))
    for each in listed:
        mark, tags = "*" if each.published else " ", ", ".join(each.names)
        print(
            f"{mark} {each.version:6} {each.created} {each.rows:12} photos  recall {each.recall:.4f}  {tags}"
        )
    return {"gallery": args.gallery, "versions": [asdict(version) for version in listed]}


@exclusive
def tag(args: argparse.Namespace, lock: Lock) -> dict[str, Any]:
    """Tag a version."""
    lock.check()
    return {"name": args.tag, "version": versions.tag_version(Folder(args.gallery), args.tag, args.version)}


@exclusive
def rollback(args: argparse.Namespace, lock: Lock) -> dict[str, Any]:
    """Publish an earlier version."""
    lock.check()
    manifest = versions.rollback(Folder(args.gallery), args.to)
    return {"gallery": args.gallery, "digest": manifest.digest, **manifest.counts, **manifest.details}


@exclusive
def optimize(args: argparse.Namespace, lock: Lock) -> dict[str, Any]:
    """Compact the table, add new rows to its indexes, measure the recall, and publish."""
    folder = Folder(args.gallery)
    manifest = versions.published_manifest(folder)
    _check_columns_and_queries(args, open_table(folder, PUBLISHED).schema)
    dataset = versions.optimize(folder, args.rebuild or args.index is not None)
    return _publish(folder, dataset.version, manifest.made_from, manifest.counts, args, lock)


@exclusive
def prune(args: argparse.Namespace, lock: Lock) -> dict[str, Any]:
    """Delete old versions and the files that only they use."""
    if args.keep < 1 or args.older_than < 0:
        raise InputError(
            f"--keep: give 1 or more; --older-than: 0 or more; got {args.keep}, {args.older_than:g}"
        )
    lock.check()
    return {**versions.prune(Folder(args.gallery), args.keep, timedelta(days=args.older_than))}


def export(args: argparse.Namespace) -> dict[str, Any]:
    """Write a version as plain files."""
    folder, out = Folder(args.gallery), Folder(args.out)
    dataset = open_table(folder, args.version or PUBLISHED)
    digest = read_metadata(dataset).checkpoint
    with artifact_lock(out, "vectors") as lock:
        manifest = export_import.export_table(dataset, digest, out, args.format, lock.check)
    return {"out": args.out, "checkpoint": digest, **manifest.counts, **manifest.details}


@exclusive
def import_(args: argparse.Namespace, lock: Lock) -> dict[str, Any]:
    """Publish vectors from plain files. Raises InputError if they lack rows of the export, or too many of the
    published photos."""
    source, folder = Folder(args.source), Folder(args.gallery)
    digest, exported = _checkpoint_and_export(source, args.checkpoint)
    is_verified = exported is not None and export_import.ROWS_DIGEST in exported.details
    if not is_verified:
        log.warning("%s: no digest of its rows; vectors and photo ids are imported unverified", source.uri)
    num_exported = exported.counts.get("ok") if exported else None
    published, share = published_version(folder), max_removed(args)

    def check(photo_ids: Collection[str]) -> None:
        if num_exported not in (None, len(photo_ids)):
            problem = f"{len(photo_ids)} rows instead of the {num_exported} that were exported"
            raise InputError(f"{source.uri}: {problem}; copy all files of the export")
        check_photo_ids(published, photo_ids, share)
        lock.check()

    version = export_import.import_table(source, folder, check, exported)
    num_rows = open_table(folder, version).count_rows()
    counts = {"in": num_rows, "ok": num_rows, "quarantined": 0}
    return _publish(folder, version, digest, counts, args, lock) | {"verified": is_verified}


def copy(args: argparse.Namespace) -> dict[str, Any]:
    """Publish the rows of the published version in another gallery. Raises InputError if they lack too many
    of the photos that are published there."""
    source, target = Folder(args.gallery), Folder(args.to)
    if source.uri == target.uri:
        raise InputError(f"TO: {args.to} is the gallery itself; give another one")
    manifest, table = versions.published_manifest(source), open_table(source, PUBLISHED)
    _check_columns_and_queries(args, table.schema)
    with artifact_lock(target, "gallery") as lock:
        published, share = published_version(target), max_removed(args)

        def check(photo_ids: Collection[str]) -> None:
            check_photo_ids(published, photo_ids, share)
            lock.check()

        version = export_import.copy_table(table, source, target, check)
        return _publish(target, version, manifest.made_from, manifest.counts, args, lock)


def _checkpoint_and_export(source: Folder, checkpoint: str | None) -> tuple[str, Manifest | None]:
    """The digest of the checkpoint that embedded the vectors, and the manifest of their export if they have
    one. Raises InputError if --checkpoint is another than that of the export."""
    digest = read_manifest(Folder(checkpoint), "checkpoint").digest if checkpoint else None
    if digest and not source.exists(MANIFEST_FILE):
        return digest, None
    remedy = f"name the checkpoint of the vectors with --checkpoint, and remove another {MANIFEST_FILE}"
    exported = read_manifest(source, "vectors", remedy)
    if digest not in (None, exported.made_from):
        problem = f"--checkpoint {checkpoint}: its digest is {digest}, the vectors have {exported.made_from}"
        raise InputError(f"{problem}; leave the option out, or give the checkpoint that embedded them")
    return exported.made_from, exported


def _publish(
    folder: Folder, version: int, digest: str, counts: dict[str, int], args: argparse.Namespace, lock: Lock
) -> dict[str, Any]:
    dataset = open_table(folder, version)
    queries = _check_columns_and_queries(args, dataset.schema)
    plan = plan_index(dataset.count_rows(), args.index_threshold, args.index)
    connect()
    options: dict[str, Any] = {"columns": tuple(args.columns), "queries": queries}
    return index_and_publish(
        folder, version, digest, plan, counts, lock, prepare=prepare_on_cluster, **options
    )


def _check_columns_and_queries(args: argparse.Namespace, schema: pa.Schema) -> dict[str, Features]:
    """Read --queries: vectors (Q, D) by kind. Raises InputError for queries of another dimension, for
    --columns that filters cannot use, and for an --index that the store does not have."""
    target = getattr(args, "to", args.gallery)
    if args.index and uri_scheme(target) == MILVUS:
        raise InputError(f"--index: {target} has the index of Milvus, IVF_FLAT; leave the option out")
    columns = filterable_columns(schema)
    for column in args.columns:
        if column not in columns:
            raise InputError(f"--columns: no column {column!r}; available: {', '.join(columns)}")
    return read_queries(args.queries, schema.field(VECTOR).type.list_size)


ACTIONS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "versions": list_versions,
    "tag": tag,
    "rollback": rollback,
    "optimize": optimize,
    "prune": prune,
    "export": export,
    "import": import_,
    "copy": copy,
}
