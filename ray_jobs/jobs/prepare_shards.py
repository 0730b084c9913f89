"""Pictures → SHARDS: one Parquet row a photo, every picture read and decoded once, nothing lost unseen."""

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

from ray_jobs.cli import Failed
from ray_jobs.cluster import placement, requirements
from ray_jobs.cluster.checks import demand
from ray_jobs.cluster.connection import connect
from stbir.data.schema import Row
from stbir.data.shard_writer import (
    QUARANTINE,
    Written,
    publish,
    remove_unlisted,
    write_quarantine,
    write_rows,
)
from stbir.data.sources.entry import Entry, Source
from stbir.data.sources.registry import open_source
from stbir.data.validation import Fault, Part, first_of_each, inspect
from stbir.errors import InputError
from stbir.storage.folder import Folder
from stbir.storage.manifest import refuse_other

log = logging.getLogger("prepare_shards")

PARTS: dict[str, tuple[Part, ...]] = {
    "sketch,text": ("sketch", "text"),
    "text": ("text",),
    "sketch": ("sketch",),
    "photo": (),
}
_PROGRESS_SECONDS = 3.0
_ENTRY_SCHEMA = pa.schema([("entry", pa.string()), ("part", pa.int32())])


def prepare_shards(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the command. Raises Failed where too much is bad, InputError for bad input."""
    _check(arguments)
    out = Folder(arguments.out)
    refuse_other(out, "shards")
    demand(requirements.place(out))
    source = open_source(arguments.source)
    for what, count in source.unused.items():
        log.info("%s: %d %s, not used", arguments.source, count, what)
    entries, duplicates = first_of_each(source.entries)
    connect()
    placement.demand_room("reading pictures", cpus=1, wait=arguments.wait)
    parts = _write(out, _assigned(entries, arguments.split, arguments.folds), source, arguments)
    faults = [*duplicates, *(fault for part in parts for fault in part.faults)]
    summary = _summary(arguments, source, parts, faults)
    write_quarantine(out, faults)
    _refuse_bad(out, summary, arguments.max_bad)
    details = {key: summary[key] for key in ("source", "requires", "splits", "reasons", "unused")}
    manifest = publish(out, parts, summary["counts"], details)
    log.info("%s", _arithmetic(summary["counts"]))
    return {**summary, "digest": manifest.digest, "files": len(manifest.detail("files"))}


def _check(arguments: argparse.Namespace) -> None:
    if not 0 <= arguments.max_bad <= 1:
        raise InputError(f"--max-bad: {arguments.max_bad} is not a share between 0 and 1")
    if arguments.rows_per_file < 1:
        raise InputError(f"--rows-per-file: {arguments.rows_per_file} is less than 1")
    if arguments.folds is not None and arguments.folds < 2:
        raise InputError(f"--folds: {arguments.folds} is less than 2")


def _assigned(entries: list[Entry], split: str | None, folds: int | None) -> list[Entry]:
    """The entries in the splits that the command asks for, else in the source's own."""
    if split:
        return [replace(entry, split=split) for entry in entries]
    if folds is None:
        return entries
    dealt = [entry.photo_id for entry in entries if entry.split != "test"]
    random.Random(0).shuffle(dealt)
    fold_of = {photo_id: f"fold{number % folds}" for number, photo_id in enumerate(dealt)}
    return [replace(entry, split=fold_of.get(entry.photo_id, entry.split)) for entry in entries]


def _write(out: Folder, entries: list[Entry], source: Source, arguments: argparse.Namespace) -> list[Written]:
    """One task, one block, one part: no picture passes through the object store or this process."""
    blocks = list(_blocks(entries, arguments.rows_per_file))
    photos = ray.data.from_arrow(blocks)
    photos.context.enable_progress_bars = False  # they count parts; `_followed` counts photos
    receipts = photos.map_batches(
        _write_part,
        batch_size=None,
        batch_format="pyarrow",
        fn_kwargs={"out": out, "read": source.read, "requires": PARTS[arguments.requires]},
    )
    parts = _followed(map(_receipt, receipts.iter_rows()), len(entries))
    return sorted(parts, key=lambda part: part.number)


def _blocks(entries: list[Entry], rows: int) -> Iterator[pa.Table]:
    """Parts of at most `rows` entries, as even as they can be: one task each."""
    rows = math.ceil(len(entries) / math.ceil(len(entries) / rows))
    for number, start in enumerate(range(0, len(entries), rows)):
        chunk = [json.dumps(asdict(entry)) for entry in entries[start : start + rows]]
        yield pa.Table.from_pylist(
            [{"entry": entry, "part": number} for entry in chunk], schema=_ENTRY_SCHEMA
        )


def _write_part(
    block: pa.Table, out: Folder, read: Callable[[str], bytes], requires: tuple[Part, ...]
) -> dict[str, list[str]]:
    """Runs in a task. What cannot be reached comes back as data: the command reports it in one line."""
    entries = [_entry(text) for text in block["entry"].to_pylist()]
    faults: list[Fault] = []
    try:
        written = write_rows(out, block["part"][0].as_py(), _rows(entries, read, requires, faults))
    except InputError as error:
        return {"receipt": [json.dumps({"error": str(error)})]}
    receipt = {**vars(written), "faults": [asdict(fault) for fault in faults]}
    return {"receipt": [json.dumps(receipt)]}


def _rows(
    entries: list[Entry], read: Callable[[str], bytes], requires: tuple[Part, ...], faults: list[Fault]
) -> Iterator[Row]:
    for entry in entries:
        row, found = inspect(entry, read, requires)
        faults += found
        if row is not None:
            yield row


def _entry(text: str) -> Entry:
    fields = json.loads(text)
    return Entry(**{**fields, "sketches": tuple(fields["sketches"])})


def _receipt(row: dict[str, Any]) -> Written:
    fields = json.loads(row["receipt"])
    if "error" in fields:
        raise InputError(fields["error"])
    fields["faults"] = [Fault(**fault) for fault in fields["faults"]]
    fields["photos"], fields["sketches"] = Counter(fields["photos"]), Counter(fields["sketches"])
    return Written(**fields)


def _followed(parts: Iterator[Written], total: int) -> Iterator[Written]:
    """The same parts; meanwhile a line every few seconds says how far the job is."""
    done = bad = 0
    shown = time.monotonic()
    for part in parts:
        lost = sum(not fault.of_sketch for fault in part.faults)
        done, bad = done + part.photos.total() + lost, bad + lost
        if time.monotonic() - shown > _PROGRESS_SECONDS or done == total:
            log.info("%d of %d photos read, %d quarantined", done, total, bad)
            shown = time.monotonic()
        yield part


def _summary(
    arguments: argparse.Namespace, source: Source, parts: list[Written], faults: list[Fault]
) -> dict[str, Any]:
    photos: Counter[str] = sum((part.photos for part in parts), Counter())
    sketches: Counter[str] = sum((part.sketches for part in parts), Counter())
    ok = photos.total()
    counts = {
        "in": len(source.entries),
        "ok": ok,
        "quarantined": sum(not fault.of_sketch for fault in faults),
        "photos": ok,
        "sketches": sketches.total(),
        "bad_sketches": sum(fault.of_sketch for fault in faults),
    }
    if counts["in"] != counts["ok"] + counts["quarantined"]:
        raise RuntimeError(f"photos got lost: {_arithmetic(counts)}")
    return {
        "source": arguments.source,
        "out": arguments.out,
        "requires": arguments.requires,
        "counts": counts,
        "splits": {split: {"photos": photos[split], "sketches": sketches[split]} for split in sorted(photos)},
        "reasons": dict(Counter(fault.reason for fault in faults)),
        "unused": dict(source.unused),
    }


def _arithmetic(counts: dict[str, int]) -> str:
    return f"{counts['in']} photos in = {counts['ok']} ok + {counts['quarantined']} quarantined"


def _refuse_bad(out: Folder, summary: dict[str, Any], max_bad: float) -> None:
    counts = summary["counts"]
    photos = counts["quarantined"] / counts["in"]
    sketches = counts["bad_sketches"] / max(1, counts["sketches"] + counts["bad_sketches"])
    if max(photos, sketches) <= max_bad and counts["ok"]:
        return
    remove_unlisted(out)
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary["reasons"].items())
    why = f"more than --max-bad {max_bad} allows" if counts["ok"] else "no photo is left"
    if "no text" in summary["reasons"]:
        why += " (with --requires sketch | photo, caption.py can write texts)"
    raise Failed(
        f"{_arithmetic(counts)}, {counts['bad_sketches']} bad sketches ({reasons}): {why};"
        f" nothing is published, {out.uri}/{QUARANTINE} names each",
        summary,
    )
