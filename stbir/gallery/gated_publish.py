"""Index a gallery version, and publish it only if its recall and its latency are good enough."""

import logging
from collections.abc import Mapping
from typing import Any

from stbir.errors import JobFailedError
from stbir.gallery.arrays import Features
from stbir.gallery.index import IndexBuilder, IndexPlan, build_index
from stbir.gallery.latency import MAX_SLOWDOWN
from stbir.gallery.publish import MIN_RECALL, prepare, publish
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
    builder: IndexBuilder = build_index,
    columns: tuple[str, ...] = (),
    queries: Mapping[str, Features] | None = None,
) -> dict[str, Any]:
    """Index a version and publish it; returns the job's summary. The options are those of `prepare`.

    Raises JobFailedError for a recall below MIN_RECALL or slow searches, and InputError if the lock is lost.
    """
    lock.check()
    candidate = prepare(
        folder, version, checkpoint_digest, plan, builder=builder, columns=columns, queries=queries
    )
    recall = f"recall@{MIN_RECALL_K} {candidate.recall:.4f}"
    log.info("%s with %s", recall, candidate.metadata.plan or "exact search")
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
