"""A cluster of which every node that works is an accelerator: photos are decoded there too."""

from collections.abc import Iterator

import pytest
from ray.cluster_utils import Cluster

from tests.cluster.conftest import MEMORY, Nodes, finished

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # training workers import the model libraries


@pytest.fixture
def alike() -> Iterator[Nodes]:
    """As cluster.local.yaml starts machines that all have GPUs."""
    head = {"num_cpus": 0, "labels": {"stbir-role": "head"}, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**head, "object_store_memory": MEMORY})
    found = Nodes(cluster)
    try:
        found.add("accelerator", cpus=4)
        yield found
    finally:
        for process in found.started:
            process.kill()
            process.communicate()
        cluster.shutdown()


def test_training_does_not_wait_for_nodes_that_nobody_has(alike: Nodes, drawn: str, out: str) -> None:
    wanted = ["ray_jobs/train.py", "--recipe", "smoke", "--shards", drawn, "--out", out]
    assert finished(alike.start(*wanted), 300)["steps"] > 0
