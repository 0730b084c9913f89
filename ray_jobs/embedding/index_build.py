"""The vector index of a gallery version and its recall, on the cluster."""

import logging
from typing import Any

import lance
import lance_ray
import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_jobs.cluster import placement
from stbir.gallery.arrays import Features
from stbir.gallery.filters import Filter
from stbir.gallery.index import SAMPLE_RATE, IndexPlan, build_index, index_options
from stbir.gallery.publish import Candidate, prepare
from stbir.gallery.recall import best_scores, exact_scores
from stbir.gallery.table import VECTOR, Table, fragment_ids
from stbir.storage.folder import Folder

log = logging.getLogger(__name__)
# Below, starting the workers takes longer than the work, and IVF_PQ has too few rows to train on.
_MIN_DISTRIBUTED_ROWS = 200_000


def prepare_on_cluster(
    folder: Folder, version: int, checkpoint_digest: str, plan: IndexPlan | None, **options: Any
) -> Candidate:
    """As `stbir.gallery.publish.prepare`, in a task that uses all nodes: a driver lacks the memory for it.

    A gallery on a local disk keeps the task on the node of the driver.
    """
    this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    place: dict[str, Any] = {"label_selector": placement.label_selector("data")}
    task = ray.remote(num_cpus=0, max_retries=0)(_prepare).options(
        **({"scheduling_strategy": this_node} if folder.is_local else place)
    )
    candidate: Candidate = ray.get(task.remote(folder.uri, version, checkpoint_digest, plan, options))
    return candidate


def _prepare(
    uri: str, version: int, checkpoint_digest: str, plan: IndexPlan | None, options: dict[str, Any]
) -> Candidate:
    steps: dict[str, Any] = {"builder": build_on_cluster, "scorer": score_on_cluster}
    return prepare(Folder(uri), version, checkpoint_digest, plan, **steps, **options)


def score_on_cluster(table: Table, query_QD: Features, k: int, filter: Filter | None = None) -> Features:
    """As `stbir.gallery.recall.exact_scores`; each task takes a share of the fragments of a large table.
    A table without fragments, in Milvus, is read in this process."""
    fragments = fragment_ids(table)
    num_tasks = min(placement.total_resource("CPU", "data"), len(fragments))
    if table.count_rows() < _MIN_DISTRIBUTED_ROWS or num_tasks < 2:
        return exact_scores(table, query_QD, k, filter)
    task = ray.remote(num_cpus=1)(_score).options(label_selector=placement.label_selector("data"))
    shares = [fragments[start::num_tasks] for start in range(num_tasks)]
    args = (table.uri, table.version, ray.put(query_QD), k, filter)
    return best_scores(np.concatenate(ray.get([task.remote(*args, share) for share in shares]), axis=1), k)


def _score(
    uri: str, version: int, query_QD: Features, k: int, filter: Filter | None, fragments: list[int]
) -> Features:
    return exact_scores(lance.dataset(uri, version=version), query_QD, k, filter, fragments)


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
    """Build an index with lance-ray, and move `dataset` to the version that has it. This process
    trains k-means, and each worker indexes its share of the fragments."""
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
