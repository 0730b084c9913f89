"""Photos + CHECKPOINT → GALLERY: decode in CPU tasks, encode in actors that hold the photo tower, publish.

Again with the same gallery: only what is new or changed is embedded, and what is gone is removed.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import lance

from ray_jobs.cli import Failed
from ray_jobs.cluster.connection import connect
from ray_jobs.cluster.metrics import EmbedMeters
from ray_jobs.embedding.index_build import build_on_cluster
from ray_jobs.embedding.pipeline import Towers, embedded, find_room, rows
from ray_jobs.embedding.progress import Progress
from ray_jobs.embedding.recall_queries import read_queries, real_queries
from ray_jobs.embedding.writer import Writer
from stbir.catalogue.photo import Catalogue
from stbir.catalogue.registry import open_catalogue
from stbir.catalogue.shards import ShardsCatalogue
from stbir.data.shard_writer import QUARANTINE, write_quarantine
from stbir.data.shards import open_shards
from stbir.data.validation import Fault
from stbir.errors import InputError
from stbir.gallery.arrays import Features
from stbir.gallery.existing_rows import changes, known
from stbir.gallery.gallery import open_table, read_facts, schema
from stbir.gallery.publish import (
    MIN_RECALL,
    RECALL_AT,
    Candidate,
    plan_index,
    prepare,
    publish,
)
from stbir.gallery.table_writer import (
    Growth,
    alike,
    forget_unread,
    grow,
    newest_tagged,
    published_version,
    without,
)
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from stbir.storage.lock import Lock, only_writer
from stbir.storage.manifest import read_manifest, refuse_other

log = logging.getLogger(__name__)
_SHOWN = 10


def embed_gallery(args: argparse.Namespace) -> dict[str, Any]:
    """Embed, index, measure, publish. What was published before stays so until the very last step."""
    _check_options(args)
    folder = Folder(args.gallery)
    if args.delete:
        return _delete(folder, args)
    args.checkpoint, digest = checkpoint.pinned(args.checkpoint)
    checkpoint.verify(args.checkpoint, digest)
    catalogue = _catalogue(args)
    _check_writable(folder)
    with only_writer(folder) as lock:
        connect()
        return _embed(catalogue, folder, digest, lock, args)


def _embed(
    catalogue: Catalogue, folder: Folder, digest: str, lock: Lock, args: argparse.Namespace
) -> dict[str, Any]:
    model = checkpoint.read_recipe(args.checkpoint).model
    given = read_queries(args.queries, model.width)
    queries = partial(real_queries, catalogue, args.checkpoint, given)
    workers, gpu = find_room(args.workers, args.gpu, args.wait)
    towers = Towers(args.checkpoint, model.photo.preprocess.size, workers, gpu, args.batch)
    columns = schema(model.width, catalogue.fields)
    published, growth = published_version(folder), grow(folder, columns, digest)
    meters, faults = EmbedMeters(folder.uri), list[Fault]()
    progress = Progress(catalogue.count, meters.show)
    there = known(growth.dataset, catalogue.fields.names)
    with Writer(growth, lock) as writer:
        for part in embedded(catalogue, there, towers):
            writer.add(rows(part, columns))
            there.keep(part.decoded.there)
            there.keep_newest([fault.photo_id for fault in part.decoded.failed])
            faults += part.decoded.faults
            progress.add(part)
    counts = progress.counts.summary()
    _check_listing(catalogue, progress.end(), counts)
    meters.write(folder)
    _check_faults(folder, faults, counts, args.max_bad)
    lock.check()
    growth.remove(there.to_go())
    _check_rows(growth, counts["embedded"] + there.kept, counts)
    counts |= _changes(published, growth, digest, catalogue)
    summary = _publish(folder, growth.dataset.version, digest, counts, args.index_above, lock, queries)
    rates = {"photos_per_s": round(progress.rate, 1), "waited": round(progress.waited, 3)}
    return {**summary, **rates, "batch": progress.batch}


def _publish(
    folder: Folder,
    version: int,
    digest: str,
    counts: dict[str, int],
    index_above: int,
    lock: Lock,
    queries: Callable[[], dict[str, Features]] = dict,
) -> dict[str, Any]:
    """What is written becomes what is read; an index is measured by `queries`. The versions on the way to it,
    which nobody read, go."""
    before = newest_tagged(folder)
    plan = plan_index(open_table(folder).count_rows(), index_above)
    asked = queries() if plan else {}  # exact search finds everything, whatever is asked
    candidate = prepare(folder, version, digest, plan, build=build_on_cluster, queries=asked)
    _check_recall(candidate, counts)
    lock.check()
    manifest = publish(folder, candidate, counts)
    forget_unread(folder, before, candidate.version)
    log.info("published version %d of %s", candidate.version, folder.uri)
    return {"gallery": folder.uri, "checkpoint": digest, **counts, **manifest.details}


def _delete(folder: Folder, args: argparse.Namespace) -> dict[str, Any]:
    """Publish what is published without some photos."""
    before = read_manifest(folder, "gallery").counts
    with only_writer(folder) as lock:
        connect()
        smaller = without(folder, args.delete)
        removed = len(set(args.delete))
        counts = {**before, "ok": smaller.count_rows(), "new": 0, "changed": 0, "removed": removed}
        digest = read_facts(smaller).checkpoint
        return _publish(folder, smaller.version, digest, counts, args.index_above, lock)


def _catalogue(args: argparse.Namespace) -> Catalogue:
    if args.photos:
        return open_catalogue(args.photos)
    catalogue = ShardsCatalogue(open_shards(args.shards), args.split)
    if next(catalogue.parts(), None) is None:
        catalogue.count()  # which says what is there instead
    return catalogue


def _changes(
    published: lance.LanceDataset | None, growth: Growth, digest: str, catalogue: Catalogue
) -> dict[str, int]:
    """Against what readers see now. What another checkpoint made does not count: every vector is new."""
    fields = catalogue.fields.names
    comparable = published is not None and alike(published, growth.dataset.schema, digest)
    counts = changes(known(published if comparable else None, fields), known(growth.dataset, fields))
    log.info("%(new)d new, %(changed)d changed, %(removed)d removed", counts)
    return counts


def _check_options(args: argparse.Namespace) -> None:
    if not 0 <= args.max_bad <= 1:
        raise InputError(f"--max-bad: {args.max_bad} is not a share between 0 and 1")
    for option in ("batch", "workers", "index_above"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise InputError(f"--{option.replace('_', '-')}: {value} is less than 1")
    given = [name for name in ("shards", "photos", "delete") if getattr(args, name)]
    if len(given) != 1:
        raise InputError("--shards, --photos, --delete: give one of them")
    if args.split and not args.shards:
        raise InputError("--split: only shards have splits; leave it out")
    if not args.delete and not args.checkpoint:
        raise InputError("--checkpoint: missing; give the folder that train.py wrote")


def _check_writable(folder: Folder) -> None:
    """Before the work, not after it: a bucket that is not there, or holds something else, is bad input."""
    refuse_other(folder, "gallery")
    folder.write(".probe", b"")
    folder.remove(".probe")


def _check_listing(catalogue: Catalogue, listed: int | None, counts: dict[str, int]) -> None:
    """What was counted beside the work is what was worked on; or else the catalogue has changed meanwhile.
    Shards cannot: of them some were lost."""
    if listed is None:
        return
    counts["listed"] = listed
    if listed != counts["in"]:
        differ = f"{counts['in']} photos were read, {listed} were listed"
        if isinstance(catalogue, ShardsCatalogue):
            raise Failed(f"{differ}; not published", counts)
        log.warning("%s: the photos have changed meanwhile; run again", differ)


def _check_faults(folder: Folder, faults: list[Fault], counts: dict[str, int], max_bad: float) -> None:
    write_quarantine(folder, faults)
    for fault in faults[:_SHOWN]:
        log.warning("quarantined %s: %s", fault.photo_id, fault.detail or fault.reason)
    log.info(
        "in %(in)d = embedded %(embedded)d + already there %(already_there)d"
        " + quarantined %(quarantined)d + failed %(failed)d",
        counts,
    )
    if len(faults) > max_bad * counts["in"] or not counts["ok"]:
        reasons = Counter(fault.reason for fault in faults)
        why = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        bad = f"{len(faults)} of {counts['in']} photos cannot be embedded ({why})"
        raise Failed(f"{bad}, see {folder.uri}/{QUARANTINE}; not published", counts)


def _check_rows(growth: Growth, expected: int, counts: dict[str, int]) -> None:
    there = growth.dataset.count_rows()
    if there != expected:
        raise Failed(f"{expected} photos went in, {there} came out; not published", counts)


def _check_recall(candidate: Candidate, counts: dict[str, int]) -> None:
    recall = f"recall@{RECALL_AT} {candidate.recall:.4f}"
    log.info("%s with %s", recall, candidate.plan or "exact search")
    if candidate.recall < MIN_RECALL:
        raise Failed(f"{recall} is below {MIN_RECALL}; not published", {**counts, "recall": candidate.recall})
