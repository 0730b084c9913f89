"""The life of a GALLERY: its versions, going back to one, folding in what was added, moving it elsewhere."""

import argparse
import functools
import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ray_jobs.command import Failed, connect, run
from ray_jobs.index_build import build_on_cluster
from stbir.data.lock import Lock, only_writer
from stbir.data.manifest import read_manifest, refuse_other
from stbir.data.storage import Folder
from stbir.errors import InputError
from stbir.retrieval import transfer, versions
from stbir.retrieval.arrays import Features
from stbir.retrieval.condition import filterable
from stbir.retrieval.gallery import PUBLISHED, open_table, read_facts
from stbir.retrieval.index import INDEX_ABOVE, KINDS
from stbir.retrieval.publish import MIN_RECALL, RECALL_AT, plan_index, prepare, publish
from stbir.retrieval.rows import VECTOR

log = logging.getLogger(__name__)


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


def name(args: argparse.Namespace, lock: Lock) -> dict[str, Any]:
    """Give a version a name."""
    lock.check()
    return {"name": args.name, "version": versions.name(Folder(args.gallery), args.name, args.version)}


def rollback(args: argparse.Namespace, lock: Lock) -> dict[str, Any]:
    """Let readers see an earlier version again."""
    lock.check()
    manifest = versions.rollback(Folder(args.gallery), args.to)
    return {"gallery": args.gallery, "digest": manifest.digest, **manifest.counts, **manifest.details}


def optimize(args: argparse.Namespace, lock: Lock) -> dict[str, Any]:
    """Fold in what was added since the index was built, measure, publish."""
    folder = Folder(args.gallery)
    manifest = versions.in_force(folder)
    _checked(args, open_table(folder, PUBLISHED).schema)
    dataset = versions.fold(folder, args.rebuild or args.index is not None)
    return _published(folder, dataset.version, manifest.made_from, manifest.counts, args, lock)


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
    manifest = transfer.export(dataset, made_from, out, args.form)
    return {"out": args.out, "checkpoint": made_from, **manifest.counts, **manifest.details}


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
    version = transfer.load(source, folder)
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


def read_queries(path: str | None, dim: int) -> dict[str, Features]:
    """Query vectors (Q, D) of a .npy file, as of the kind "given"; without a file, none.

    Raises InputError, naming --queries, where D is not `dim`.
    """
    if path is None:
        return {}
    try:
        query_QD = np.asarray(np.load(Path(path), allow_pickle=False), np.float32)
    except (OSError, ValueError) as error:
        raise InputError(f"--queries: {path}: {error}; give a .npy of float32 (Q, D)") from error
    if query_QD.ndim != 2 or query_QD.shape[1] != dim or not len(query_QD):
        raise InputError(f"--queries: {path}: shape {query_QD.shape}; give a .npy of float32 (Q, {dim})")
    return {"given": query_QD}


def alone(work: Callable[[argparse.Namespace, Lock], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The same, with nobody else writing to the gallery meanwhile; `work` checks that before it writes."""

    @functools.wraps(work)
    def locked(args: argparse.Namespace) -> dict[str, Any]:
        with only_writer(Folder(args.gallery)) as lock:
            return work(args, lock)

    return locked


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser("gallery", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(word: str, work: Callable[..., Any]) -> Callable[..., argparse.Action]:
        one = commands.add_parser(word, help=(work.__doc__ or "").rstrip("."), description=work.__doc__)
        one.set_defaults(work=work)
        one.add_argument("gallery", metavar="GALLERY", help="made by embed_gallery.py, or to be made")
        return one.add_argument

    command("versions", show)
    add = command("name", alone(name))
    add("name")
    add("version", nargs="?", help="its number or another name (default: what is published)")
    command("rollback", alone(rollback))("to", metavar="NAME|VERSION")
    add = command("optimize", alone(optimize))
    add("--rebuild", action="store_true", help="build the vector index anew")
    _add_index(add)
    add = command("clean", alone(clean))
    add("--keep", type=int, default=3, help="so many published versions stay (%(default)s)")
    add("--older-than", type=float, default=7, metavar="DAYS", help="remove nothing newer (%(default)s)")
    add = command("export", export)
    add("out", metavar="OUT", help="where to")
    add("--form", choices=transfer.FORMS, default=transfer.FORMS[0])
    add("--version", help="its name (default: what is published)")
    add = command("import", alone(load))
    add("source", metavar="FROM", help="what export wrote, or Parquet with photo_id, category, embedding")
    add("--checkpoint", metavar="URI", help="what made the vectors, where FROM does not say it")
    _add_index(add)
    return parser


def _add_index(add: Callable[..., argparse.Action]) -> None:
    add("--index", choices=KINDS, help="another kind than the size suggests")
    add("--index-above", type=int, default=INDEX_ABOVE, metavar="PHOTOS", help="below: exact (%(default)s)")
    add("--columns", nargs="*", default=[], help="metadata to index for filters, beside category")
    add("--queries", metavar="NPY", help="vectors of real queries to measure recall with, too")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Do what the first word says."""
    done: dict[str, Any] = args.work(args)
    return done


if __name__ == "__main__":
    run(main, parser())
