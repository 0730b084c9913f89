"""Index a gallery version on the cluster, check its recall, and publish it."""

import logging
from collections.abc import Mapping
from typing import Any

import lance
import lance_ray

from ray_jobs.cluster import placement
from stbir.errors import JobFailedError
from stbir.gallery.arrays import Features
from stbir.gallery.index import SAMPLE_RATE, IndexPlan, build_index, index_options
from stbir.gallery.latency import MAX_SLOWDOWN
from stbir.gallery.publish import MIN_RECALL, prepare, publish
from stbir.gallery.recall import MIN_RECALL_K
from stbir.gallery.rows import VECTOR
from stbir.storage.folder import Folder
from stbir.storage.lock import Lock

log = logging.getLogger(__name__)
# Below, starting the workers takes longer than the build, and IVF_PQ has too few rows to train on.
_MIN_DISTRIBUTED_ROWS = 200_000


def index_and_publish(
    folder: Folder,
    version: int,
    checkpoint_digest: str,
    plan: IndexPlan | None,
    counts: dict[str, int],
    lock: Lock,
    *,
    columns: tuple[str, ...] = (),
    queries: Mapping[str, Features] | None = None,
) -> dict[str, Any]:
    """Index a version and publish it; returns the job's summary. Raises JobFailedError for a recall below
    MIN_RECALL or slow searches, and InputError if the lock is lost."""
    lock.check()
    candidate = prepare(
        folder, version, checkpoint_digest, plan, builder=build_on_cluster, columns=columns, queries=queries
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


def build_on_cluster(dataset: lance.LanceDataset, plan: IndexPlan) -> None:
    """Build an index: distributed if the cluster and the table are large enough, else on the driver. The
    index segments of the workers are not merged; a search reads all of them."""
    num_rows, num_fragments = dataset.count_rows(), len(dataset.get_fragments())
    num_nodes = placement.num_worker_nodes()
    if num_nodes < 2 or num_rows < _MIN_DISTRIBUTED_ROWS or num_fragments < 2:
        build_index(dataset, plan)
        return
    log.info("building %s on %d nodes", plan.kind, num_nodes)
    build_distributed(dataset, plan, num_workers=min(num_nodes, num_fragments))


def build_distributed(dataset: lance.LanceDataset, plan: IndexPlan, num_workers: int) -> None:
    """Build an index with lance-ray, and move `dataset` to the version that has it. The driver trains
    k-means, and each worker indexes its share of the fragments."""
    lance_ray.create_index(
        dataset.uri,
        VECTOR,
        plan.kind,
        metric="cosine",
        num_partitions=plan.partitions,
        num_workers=num_workers,
        sample_rate=max(2, min(SAMPLE_RATE, dataset.count_rows() // plan.partitions)),
        **index_options(plan, dataset),
    )
    dataset.checkout_version(dataset.latest_version)
