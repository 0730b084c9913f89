"""What must hold after each fault. Each function returns the violations, one sentence each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch

from ray_jobs.training.job import num_completed_steps
from stbir.data.shards import open_shards
from stbir.gallery.gallery import open_table, open_version
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from tests.cluster.application import Release
from tests.ray_jobs.chat_server import caption_text
from tests.ray_jobs.test_resume import in_order, logged


@dataclass(frozen=True)
class Answer:
    """The response to a search; status 0 for a lost connection, with the reason as `body`."""

    status: int
    body: Any


def check_training(out: str, undisturbed: str) -> list[str]:
    """The log has each step once, with equal losses to the bit, and the weights are equal."""
    steps, expected = logged(out), logged(undisturbed)
    resumed, weights = (checkpoint.load(uri).state_dict() for uri in (out, undisturbed))
    return _violations(
        {
            f"{len(steps)} steps are logged, {num_completed_steps(out)} are in the checkpoint": len(steps)
            == num_completed_steps(out),
            "steps are missing, doubled or out of order": in_order(steps),
            "losses differ from those of an undisturbed run": steps == expected,
            "weights differ from those of an undisturbed run": all(
                torch.equal(resumed[name], weights[name]) for name in weights
            ),
        }
    )


def check_gallery(gallery: str, undisturbed: str, digest: str) -> list[str]:
    """The gallery opens with its checkpoint, and has each row of an undisturbed job once."""
    folder = Folder(gallery)
    table, expected = (_published(uri) for uri in (gallery, undisturbed))
    ids = table["photo_id"].to_pylist()
    return _violations(
        {
            "rows are doubled": len(ids) == len(set(ids)),
            "rows differ from those of an undisturbed job": table.equals(expected),
            "the gallery opens with other rows": open_version(gallery, digest, None).count_rows() == len(ids),
            "the lock is not released": not _is_locked(folder),
        }
    )


def check_captions(out: str, count: int, calls: int, max_calls: int) -> list[str]:
    """Each photo has its caption once, and the endpoint was called `max_calls` times at most."""
    shards = open_shards(out)
    captions = [(row["photo_id"], row["text"]) for row in shards.iter_rows(None)]
    counts = shards.manifest.counts
    num_captioned = sum(counts.get(name, 0) for name in ("captioned", "already_there"))
    return _violations(
        {
            "captions are missing, doubled or of another photo": sorted(captions)
            == sorted((f"p{number}", caption_text(number)) for number in range(count)),
            f"the manifest counts {counts}": num_captioned == count,
            f"{calls} answers were paid for, {max_calls} at most are expected": calls <= max_calls,
        }
    )


def check_answers(
    answers: Sequence[Answer], releases: Mapping[tuple[str, int], Release], error_statuses: Sequence[int]
) -> list[str]:
    """Searches were answered, each with hits of one release; all others have an expected status."""
    answered = [answer.body for answer in answers if answer.status == 200]
    errors = {answer.status: answer.body for answer in answers if answer.status not in (200, *error_statuses)}
    mixed = [body for body in answered if not is_of_one_release(body, releases)]
    return _violations(
        {
            "no search was answered": bool(answered),
            f"unexpected answers: {errors}"[:500]: not errors,
            f"{len(mixed)} answers are of no single release: {mixed[:1]}"[:500]: not mixed,
        }
    )


def is_of_one_release(body: Any, releases: Mapping[tuple[str, int], Release]) -> bool:
    release = releases.get((body["checkpoint"], body["gallery_version"]))
    return release is not None and {hit["photo_id"] for hit in body["hits"]} <= release.ids


def _published(gallery: str) -> pa.Table:
    return open_table(Folder(gallery), "published").to_table().sort_by("photo_id")


def _is_locked(folder: Folder) -> bool:
    return any(b'"free": false' in folder.read(name) for name in folder.list_files("writer/*.json"))


def _violations(conditions: Mapping[str, bool]) -> list[str]:
    return [violation for violation, holds in conditions.items() if not holds]
