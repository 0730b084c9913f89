"""A sample of what a captioning run would do, on a sheet for a person to approve."""

import argparse
import json
import logging
from dataclasses import replace
from typing import Any

import numpy as np

from ray_jobs.captioning.ledger import Ledger, Wanted
from ray_jobs.captioning.tasks import Job, is_wanted, pictures_of
from stbir.captioning.answer import judge
from stbir.captioning.caption import Caption
from stbir.captioning.estimate import Estimate, Price
from stbir.captioning.prompt_image import sent
from stbir.captioning.sheet import Sheet, Shown
from stbir.data.shards import Shards
from stbir.errors import InputError
from stbir.storage.folder import Folder

log = logging.getLogger("caption")

JSON, HTML = "sheet.json", "sheet.html"
_SHOWN_PIXELS = 360


def spread(job: Job, shards: Shards, count: int) -> Job:
    """The job for `count` photos alone, spread evenly over those that want a caption.

    Raises InputError where none does.
    """
    wanted = [row["photo_id"] for row in shards.index.to_pylist() if is_wanted(job, row)]
    if not wanted:
        raise InputError(f"{shards.folder.uri}: every photo has a text; --replace captions these too")
    places = np.linspace(0, len(wanted) - 1, min(count, len(wanted))).round().astype(int)
    return replace(job, chosen=frozenset(wanted[place] for place in places))


def write_sheet(
    out: Folder, args: argparse.Namespace, job: Job, ledger: Ledger, rest: Estimate
) -> dict[str, Any]:
    """Write the sheet, as a page and as JSON. Returns where the page is."""
    pictures = dict(pictures_of(job.shards, ledger.wanted))
    shown = [_shown(job, ledger, each, pictures[each.key]) for each in ledger.wanted]
    cost = Price(args.price_in, args.price_out).of(ledger.spent)
    sheet = Sheet(args.model, job.prompt.version, args.shards, shown, rest, cost)
    out.write(JSON, json.dumps(sheet.as_dict(), indent=2).encode())
    out.write(HTML, sheet.html().encode())
    log.info("look at %s", f"{out.uri}/{HTML}")
    return {"sheet": f"{out.uri}/{HTML}"}


def _shown(job: Job, ledger: Ledger, wanted: Wanted, photo: bytes) -> Shown:
    answers = job.answers.get(wanted.key).answers
    found = judge(answers, job.prompt.words) if answers else None
    outcome = ledger.of(wanted)
    return Shown(
        photo_id=wanted.photo_id,
        picture=_picture(photo),
        caption=found if isinstance(found, Caption) else None,
        given=wanted.given,
        fault=f"{outcome.reason}: {outcome.detail}" if outcome and outcome.reason else None,
        asked=len(answers),
    )


def _picture(photo: bytes) -> str | None:
    try:
        return sent(photo, _SHOWN_PIXELS)
    except InputError:
        return None  # the sheet says so; the fault beside it says why
