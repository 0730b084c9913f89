"""The vector index of a gallery, built by the whole cluster: k-means here, then each worker its share of the
files (lance-ray; every kind of `stbir.gallery.index` works so in the pinned version)."""

import logging

import lance
import lance_ray

from ray_jobs.cluster import placement
from stbir.gallery.index import IndexPlan, build, options
from stbir.gallery.rows import VECTOR

log = logging.getLogger(__name__)
_SAMPLES = 256  # vectors a part that k-means learns from, where there are so many
# Below, starting the workers takes longer than the work, and IVF_PQ has too little to learn from.
_WORTH_IT = 200_000


def build_on_cluster(dataset: lance.LanceDataset, plan: IndexPlan) -> None:
    """As `stbir.gallery.index.build`, in parallel where that is worth it. The shares stay apart and are
    searched together; Ray must be connected."""
    rows, files, machines = dataset.count_rows(), len(dataset.get_fragments()), placement.machines()
    if machines < 2 or rows < _WORTH_IT or files < 2:  # one machine's cores are all at work already
        build(dataset, plan)
        return
    log.info("building %s on %d machines", plan.kind, machines)
    in_parallel(dataset, plan, workers=min(machines, files))


def in_parallel(dataset: lance.LanceDataset, plan: IndexPlan, workers: int) -> None:
    """Build with so many workers; `dataset` is then the version that has the index."""
    lance_ray.create_index(
        dataset.uri,
        VECTOR,
        plan.kind,
        metric="cosine",
        num_partitions=plan.partitions,
        num_workers=workers,
        sample_rate=max(2, min(_SAMPLES, dataset.count_rows() // plan.partitions)),
        **options(plan, dataset),
    )
    dataset.checkout_version(dataset.latest_version)
