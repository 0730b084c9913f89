"""The prepare_shards command: validates each photo of a source once and writes it as a Parquet row."""

import argparse
import json
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
import ray.data

from ray_jobs.cli import check_error_rate, check_minimum
from ray_jobs.cluster import placement, requirements
from ray_jobs.cluster.checks import enforce
from ray_jobs.cluster.connection import connect
from stbir.config import Modality
from stbir.data.schema import Row
from stbir.data.shard_writer import (
    QUARANTINE,
    ShardPart,
    count_strokes,
    publish,
    remove_unlisted_files,
    write_quarantine,
    write_rows,
)
from stbir.data.sources.entry import Entry, Source
from stbir.data.sources.own_data.source import OwnFiles
from stbir.data.sources.registry import is_own_data, open_source
from stbir.data.validation import Fault, drop_duplicates, validate_entry
from stbir.errors import InputError, JobFailedError
from stbir.storage.folder import Folder
from stbir.storage.lock import Lock, artifact_lock
from stbir.storage.manifest import refuse_other_kind

log = logging.getLogger("prepare_shards")

REQUIRED_PARTS: dict[str, tuple[Modality, ...]] = {
    "sketch,text": ("sketch", "text"),
    "text": ("text",),
    "sketch": ("sketch",),
    "photo": (),
}
_PROGRESS_INTERVAL_S = 3.0
_ENTRY_SCHEMA = pa.schema([("entry", pa.string()), ("part", pa.int32())])


def prepare_shards(args: argparse.Namespace) -> dict[str, Any]:
    """Run the command. Raises JobFailedError if too many photos or sketches are bad."""
    _check(args)
    out = Folder(args.out)
    refuse_other_kind(out, "shards")
    enforce(requirements.storage(out))
    source = open_source(args.source, OwnFiles(args.photos, args.sketches, args.columns))
    args.require = args.require or ("photo" if is_own_data(args.source) else "sketch,text")
    for kind, count in source.unused.items():
        log.info("%s: %d %s, not used", args.source, count, kind)
    for note in source.notes:
        log.info("%s: %s", args.source, note)
    with artifact_lock(out, "shards") as lock:
        connect()
        placement.require_resources("reading images", cpus=1, timeout_s=args.resource_timeout)
        return _prepare(out, source, lock, args)


def _prepare(out: Folder, source: Source, lock: Lock, args: argparse.Namespace) -> dict[str, Any]:
    entries, duplicates = drop_duplicates(source.entries)
    parts = _write(out, _assign_splits(entries, args.split, args.folds), source, args)
    faults = [*duplicates, *(fault for part in parts for fault in part.faults)]
    summary = _summary(args, source, parts, faults)
    lock.check()
    write_quarantine(out, faults)
    _check_error_rate(out, summary, args.max_error_rate)
    details = {key: summary[key] for key in ("source", "requires", "splits", "reasons", "unused")}
    manifest = publish(out, parts, summary["counts"], details)
    log.info("%s", _format_counts(summary["counts"]))
    return {**summary, "digest": manifest.digest, "files": len(manifest.detail("files"))}


def _check(args: argparse.Namespace) -> None:
    check_error_rate(args)
    check_minimum(args, 1, "rows_per_file")
    check_minimum(args, 2, "folds")


def _assign_splits(entries: list[Entry], split: str | None, folds: int | None) -> list[Entry]:
    """Set the split of each entry as --split or --folds says; by default the source sets it."""
    if split:
        return [replace(entry, split=split) for entry in entries]
    if folds is None:
        return entries
    photo_ids = [entry.photo_id for entry in entries if entry.split != "test"]
    random.Random(0).shuffle(photo_ids)
    fold_of = {photo_id: f"fold{number % folds}" for number, photo_id in enumerate(photo_ids)}
    return [replace(entry, split=fold_of.get(entry.photo_id, entry.split)) for entry in entries]


def _write(out: Folder, entries: list[Entry], source: Source, args: argparse.Namespace) -> list[ShardPart]:
    """Write one part per task. No image passes through the object store or this process."""
    blocks = list(_blocks(entries, args.rows_per_file))
    photos = ray.data.from_arrow(blocks)
    photos.context.enable_progress_bars = False  # they count parts; `_log_progress` counts photos
    receipts = photos.map_batches(
        _write_part,
        batch_size=None,
        batch_format="pyarrow",
        fn_kwargs={"out": out, "read": source.read, "requires": REQUIRED_PARTS[args.require]},
    )
    parts = _log_progress(map(_receipt, receipts.iter_rows()), len(entries))
    return sorted(parts, key=lambda part: part.number)


def _blocks(entries: list[Entry], rows: int) -> Iterator[pa.Table]:
    """Divide entries evenly into blocks of at most `rows`; each becomes one task."""
    rows = math.ceil(len(entries) / math.ceil(len(entries) / rows))
    for number, start in enumerate(range(0, len(entries), rows)):
        chunk = [json.dumps(asdict(entry)) for entry in entries[start : start + rows]]
        yield pa.Table.from_pylist(
            [{"entry": entry, "part": number} for entry in chunk], schema=_ENTRY_SCHEMA
        )


def _write_part(
    block: pa.Table, out: Folder, read: Callable[[str], bytes], requires: tuple[Modality, ...]
) -> dict[str, list[str]]:
    """Write a block in a task. Returns an InputError as data, so that the command prints one line."""
    entries = [_entry(text) for text in block["entry"].to_pylist()]
    faults: list[Fault] = []
    try:
        written = write_rows(out, block["part"][0].as_py(), _valid_rows(entries, read, requires, faults))
    except InputError as error:
        return {"receipt": [json.dumps({"error": str(error)})]}
    receipt = {**vars(written), "faults": [asdict(fault) for fault in faults]}
    return {"receipt": [json.dumps(receipt)]}


def _valid_rows(
    entries: list[Entry], read: Callable[[str], bytes], requires: tuple[Modality, ...], faults: list[Fault]
) -> Iterator[Row]:
    for entry in entries:
        row, row_faults = validate_entry(entry, read, requires)
        faults += row_faults
        if row is not None:
            yield row


def _entry(text: str) -> Entry:
    fields = json.loads(text)
    return Entry(**fields | {name: tuple(fields[name]) for name in ("sketches", "strokes")})


def _receipt(row: dict[str, Any]) -> ShardPart:
    fields = json.loads(row["receipt"])
    if "error" in fields:
        raise InputError(fields["error"])
    fields["faults"] = [Fault(**fault) for fault in fields["faults"]]
    fields["photos"], fields["sketches"] = Counter(fields["photos"]), Counter(fields["sketches"])
    return ShardPart(**fields)


def _log_progress(parts: Iterator[ShardPart], total: int) -> Iterator[ShardPart]:
    """Pass the parts on, and log progress every few seconds."""
    done = bad = 0
    logged_at = time.monotonic()
    for part in parts:
        quarantined = sum(not fault.is_sketch_fault for fault in part.faults)
        done, bad = done + part.photos.total() + quarantined, bad + quarantined
        if time.monotonic() - logged_at > _PROGRESS_INTERVAL_S or done == total:
            log.info("%d of %d photos read, %d quarantined", done, total, bad)
            logged_at = time.monotonic()
        yield part


def _summary(
    args: argparse.Namespace, source: Source, parts: list[ShardPart], faults: list[Fault]
) -> dict[str, Any]:
    photos: Counter[str] = sum((part.photos for part in parts), Counter())
    sketches: Counter[str] = sum((part.sketches for part in parts), Counter())
    ok = photos.total()
    counts = {
        "in": len(source.entries),
        "ok": ok,
        "quarantined": sum(not fault.is_sketch_fault for fault in faults),
        "photos": ok,
        "sketches": sketches.total(),
        "bad_sketches": sum(fault.is_sketch_fault for fault in faults),
    } | count_strokes(parts)
    if counts["in"] != counts["ok"] + counts["quarantined"]:
        raise RuntimeError(f"photo counts do not add up: {_format_counts(counts)}")
    return {
        "source": args.source,
        "out": args.out,
        "requires": args.require,
        "counts": counts,
        "splits": {split: {"photos": photos[split], "sketches": sketches[split]} for split in sorted(photos)},
        "reasons": dict(Counter(fault.reason for fault in faults)),
        "unused": dict(source.unused),
    }


def _format_counts(counts: dict[str, int]) -> str:
    return f"{counts['in']} photos in = {counts['ok']} ok + {counts['quarantined']} quarantined"


def _check_error_rate(out: Folder, summary: dict[str, Any], max_error_rate: float) -> None:
    counts = summary["counts"]
    photos = counts["quarantined"] / counts["in"]
    sketches = counts["bad_sketches"] / max(1, counts["sketches"] + counts["bad_sketches"])
    if max(photos, sketches) <= max_error_rate and counts["ok"]:
        return
    remove_unlisted_files(out)
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary["reasons"].items())
    reason = f"more than --max-error-rate {max_error_rate} allows" if counts["ok"] else "no photo is valid"
    if "no text" in summary["reasons"]:
        reason += " (with --require sketch | photo, caption.py can write texts)"
    raise JobFailedError(
        f"{_format_counts(counts)}, {counts['bad_sketches']} bad sketches ({reasons}): {reason};"
        f" nothing is published, see {out.uri}/{QUARANTINE}",
        summary,
    )
