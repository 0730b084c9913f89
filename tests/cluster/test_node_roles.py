"""A cluster with accelerator nodes only: photos are decoded there too."""

from collections.abc import Iterator

import pytest

from tests.cluster.conftest import Nodes, cluster_with_head, finished

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # training workers import the model libraries


@pytest.fixture
def gpu_nodes() -> Iterator[Nodes]:
    """As cluster.local.yaml starts machines that all have GPUs."""
    with cluster_with_head("head", 0) as cluster:
        cluster.add("accelerator", cpus=4)
        yield cluster


def test_training_does_not_wait_for_data_nodes_that_do_not_exist(
    gpu_nodes: Nodes, synthetic_shards: str, out: str
) -> None:
    command = ["ray_jobs/train.py", "--recipe", "smoke", "--shards", synthetic_shards, "--out", out]
    assert finished(gpu_nodes.start(*command), 300)["steps"] > 0
