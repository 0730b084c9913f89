"""The life of a GALLERY: its versions, going back to one, folding in what was added, moving it elsewhere."""

import argparse
import functools
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pyarrow as pa

from ray_jobs.cli import Failed
from ray_jobs.cluster.connection import connect
from ray_jobs.embedding.index_build import build_on_cluster
from ray_jobs.embedding.recall_queries import read_queries
from stbir.errors import InputError
from stbir.gallery import export_import, versions
from stbir.gallery.arrays import Features
from stbir.gallery.filters import filterable
from stbir.gallery.gallery import PUBLISHED, open_table, read_facts
from stbir.gallery.publish import MIN_RECALL, RECALL_AT, plan_index, prepare, publish
from stbir.gallery.rows import VECTOR
from stbir.storage.folder import Folder
from stbir.storage.lock import Lock, only_writer
from stbir.storage.manifest import read_manifest, refuse_other

log = logging.getLogger(__name__)


def exclusive(work: Callable[[argparse.Namespace, Lock], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The same, with nobody else writing to the gallery meanwhile; `work` checks that before it writes."""

    @functools.wraps(work)
    def locked(args: argparse.Namespace) -> dict[str, Any]:
        with only_writer(Folder(args.gallery)) as lock:
            return work(args, lock)

    return locked


def show(args: argparse.Namespace) -> dict[str, Any]:
    """All versions that were published, newest first."""
    found = versions.versions(Folder(args.gallery))
    for each in found:
        mark = "*" if each.published else " "
        names = ", ".join(each.names)
        print(
            f"{mark} {each.version:6} {each.created} {each.rows:12} photos  recall {each.recall:.4f}  {names}"
        )
    return {"gallery": args.gallery, "versions": versions.as_rows(found)}


@exclusive
def name(args: argparse.Namespace, lock: Lock) -> dict[str, Any]:
    """Give a version a name."""
    lock.check()
    return {"name": args.name, "version": versions.name(Folder(args.gallery), args.name, args.version)}


@exclusive
def rollback(args: argparse.Namespace, lock: Lock) -> dict[str, Any]:
    """Let readers see an earlier version again."""
    lock.check()
    manifest = versions.rollback(Folder(args.gallery), args.to)
    return {"gallery": args.gallery, "digest": manifest.digest, **manifest.counts, **manifest.details}


@exclusive
def optimize(args: argparse.Namespace, lock: Lock) -> dict[str, Any]:
    """Fold in what was added since the index was built, measure, publish."""
    folder = Folder(args.gallery)
    manifest = versions.in_force(folder)
    _checked(args, open_table(folder, PUBLISHED).schema)
    dataset = versions.fold(folder, args.rebuild or args.index is not None)
    return _published(folder, dataset.version, manifest.made_from, manifest.counts, args, lock)


@exclusive
def clean(args: argparse.Namespace, lock: Lock) -> dict[str, Any]:
    """Remove old versions and the files that only they have."""
    if args.keep < 1 or args.older_than < 0:
        raise InputError(f"--keep {args.keep} --older-than {args.older_than}: at least 1, at least 0 days")
    lock.check()
    removed: dict[str, Any] = {
        **versions.clean(Folder(args.gallery), args.keep, timedelta(days=args.older_than))
    }
    return removed


def export(args: argparse.Namespace) -> dict[str, Any]:
    """Write what is published as plain files."""
    folder, out = Folder(args.gallery), Folder(args.out)
    dataset = open_table(folder, args.version or PUBLISHED)
    made_from = read_facts(dataset).checkpoint
    refuse_other(out, "vectors")
    manifest = export_import.export(dataset, made_from, out, args.form)
    return {"out": args.out, "checkpoint": made_from, **manifest.counts, **manifest.details}


@exclusive
def load(args: argparse.Namespace, lock: Lock) -> dict[str, Any]:
    """Publish vectors that lie in plain files."""
    source, folder = Folder(args.source), Folder(args.gallery)
    refuse_other(folder, "gallery")
    digest = (
        read_manifest(Folder(args.checkpoint), "checkpoint").digest
        if args.checkpoint
        else read_manifest(source, "vectors", "say with --checkpoint what made these vectors").made_from
    )
    lock.check()
    version = export_import.load(source, folder)
    rows = open_table(folder, version).count_rows()
    return _published(folder, version, digest, {"in": rows, "ok": rows, "quarantined": 0}, args, lock)


def _published(
    folder: Folder, version: int, digest: str, counts: dict[str, int], args: argparse.Namespace, lock: Lock
) -> dict[str, Any]:
    dataset = open_table(folder, version)
    queries = _checked(args, dataset.schema)
    plan = plan_index(dataset.count_rows(), args.index_above, args.index)
    connect()
    lock.check()
    candidate = prepare(
        folder, version, digest, plan, build=build_on_cluster, columns=tuple(args.columns), queries=queries
    )
    if candidate.recall < MIN_RECALL:
        what = f"recall@{RECALL_AT} {candidate.recall:.4f} is below {MIN_RECALL}"
        raise Failed(f"{what}; not published", {"recalls": candidate.recalls})
    lock.check()
    manifest = publish(folder, candidate, counts)
    log.info("published version %d with %s", candidate.version, candidate.plan or "exact search")
    return {"gallery": folder.uri, "checkpoint": digest, **counts, **manifest.details}


def _checked(args: argparse.Namespace, schema: pa.Schema) -> dict[str, Features]:
    """The queries (Q, D) that are given, if any are, by kind. Raises InputError, before hours of work, for
    those that do not fit the table, and for --columns that cannot be filtered by."""
    columns = filterable(schema)
    for column in args.columns:
        if column not in columns:
            raise InputError(f"--columns: there is no {column!r}; there is {', '.join(columns)}")
    return read_queries(args.queries, schema.field(VECTOR).type.list_size)


ACTIONS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "versions": show,
    "name": name,
    "rollback": rollback,
    "optimize": optimize,
    "clean": clean,
    "export": export,
    "import": load,
}
