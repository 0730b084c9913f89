"""The vector index of a gallery version, built on the cluster."""

import logging

import lance
import lance_ray

from ray_jobs.cluster import placement
from stbir.gallery.index import SAMPLE_RATE, IndexPlan, build_index, index_options
from stbir.gallery.table import VECTOR

log = logging.getLogger(__name__)
# Below, starting the workers takes longer than the build, and IVF_PQ has too few rows to train on.
_MIN_DISTRIBUTED_ROWS = 200_000


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
    dataset.checkout_latest()
