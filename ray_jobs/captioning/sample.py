"""Sample of a captioning run and its review sheet."""

import argparse
import json
import logging
from dataclasses import replace
from typing import Any

import numpy as np

from ray_jobs.captioning.ledger import CaptionTarget, Ledger
from ray_jobs.captioning.tasks import Job, needs_caption, read_targets
from stbir.captioning.caption import Caption
from stbir.captioning.estimate import Estimate, Price
from stbir.captioning.prompt_image import encode_data_uri
from stbir.captioning.sheet import Sheet, SheetEntry
from stbir.data.shards import Shards
from stbir.errors import InputError
from stbir.storage.folder import Folder

log = logging.getLogger("caption")

JSON, HTML = "sheet.json", "sheet.html"
_SHEET_SIDE = 360  # pixels


def sample_job(job: Job, shards: Shards, count: int) -> Job:
    """Restrict a job to `count` photos, spread evenly over those that need a caption.

    Raises InputError if no photo does.
    """
    ids = [row["photo_id"] for row in shards.index.to_pylist() if needs_caption(job, row)]
    if not ids:
        raise InputError(f"{shards.folder.uri}: every photo has a text; add --replace to caption these too")
    positions = np.linspace(0, len(ids) - 1, min(count, len(ids))).round().astype(int)
    return replace(job, sample=frozenset(ids[position] for position in positions))


def write_sheet(
    out: Folder, args: argparse.Namespace, job: Job, ledger: Ledger, remaining: Estimate
) -> dict[str, Any]:
    """Write the sheet as HTML and JSON. Returns the URI of the page."""
    photos = dict(read_targets(job.shards, ledger.targets))
    entries = [_entry(job, ledger, target, photos[target.key]) for target in ledger.targets]
    cost = Price(args.price_in, args.price_out).cost(ledger.usage)
    sheet = Sheet(args.model, job.prompt.version, args.shards, entries, remaining, cost)
    out.write(JSON, json.dumps(sheet.as_dict(), indent=2).encode())
    out.write(HTML, sheet.html().encode())
    uri = f"{out.uri}/{HTML}"
    log.info("review %s", uri)
    return {"sheet": uri}


def _entry(job: Job, ledger: Ledger, target: CaptionTarget, photo: bytes) -> SheetEntry:
    record = job.store.get(target.key)
    caption = record.parse_last(job.prompt.max_word_count)
    outcome = ledger.outcome(target)
    return SheetEntry(
        photo_id=target.photo_id,
        image=_encode_image(photo),
        caption=caption if isinstance(caption, Caption) else None,
        reference=target.reference,
        fault=f"{outcome.reason}: {outcome.detail}" if outcome and outcome.reason else None,
        answer_count=len(record.answers),
    )


def _encode_image(photo: bytes) -> str | None:
    try:
        return encode_data_uri(photo, _SHEET_SIDE)
    except InputError:
        return None  # the entry's fault has the reason
