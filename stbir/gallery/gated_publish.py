"""Index a gallery version, and publish it only if its recall and its latency are good enough."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from stbir.errors import JobFailedError
from stbir.gallery.arrays import Features
from stbir.gallery.index import IndexPlan
from stbir.gallery.latency import MAX_SLOWDOWN
from stbir.gallery.publish import MIN_RECALL, Candidate, prepare, publish
from stbir.gallery.recall import MIN_RECALL_K
from stbir.storage.folder import Folder
from stbir.storage.lock import Lock

log = logging.getLogger(__name__)


def index_and_publish(
    folder: Folder,
    version: int,
    checkpoint_digest: str,
    plan: IndexPlan | None,
    counts: dict[str, int],
    lock: Lock,
    *,
    prepare: Callable[..., Candidate] = prepare,
    columns: tuple[str, ...] = (),
    queries: Mapping[str, Features] | None = None,
) -> dict[str, Any]:
    """Index a version and publish it; returns the job's summary. The options are those of `prepare`, which
    may run in another process.

    Raises JobFailedError for a recall below MIN_RECALL or slow searches, and InputError if the lock is lost.
    """
    lock.check()
    candidate = prepare(folder, version, checkpoint_digest, plan, columns=columns, queries=queries)
    recall = f"recall@{MIN_RECALL_K} {candidate.recall:.4f}"
    log.info(
        "%s (95 %% interval %.4f to %.4f) with %s",
        recall,
        *candidate.recall_interval,
        candidate.metadata.plan or "exact search",
    )
    summary = {**counts, "recall": candidate.recall, "recalls": candidate.recalls}
    if candidate.recall < MIN_RECALL:
        raise JobFailedError(f"{recall} is below {MIN_RECALL}; not published", summary)
    if candidate.is_slow:
        raise JobFailedError(
            f"searches take {candidate.slowdown:.1f} times as long as in the published version (limit"
            f" {MAX_SLOWDOWN}); not published: run again, or publish to another folder",
            {**summary, "latencies": candidate.latencies},
        )
    lock.check()
    manifest = publish(folder, candidate, counts)
    log.info("published version %d of %s", candidate.version, folder.uri)
    return {"gallery": folder.uri, "checkpoint": checkpoint_digest, **counts, **manifest.details}
