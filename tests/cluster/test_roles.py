"""A cluster of which every node that works is an accelerator: photos are decoded there too."""

from collections.abc import Iterator

import pytest

from tests.cluster.conftest import Nodes, finished, headed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # training workers import the model libraries


@pytest.fixture
def alike() -> Iterator[Nodes]:
    """As cluster.local.yaml starts machines that all have GPUs."""
    with headed("head", 0) as found:
        found.add("accelerator", cpus=4)
        yield found


def test_training_does_not_wait_for_nodes_that_nobody_has(alike: Nodes, drawn: str, out: str) -> None:
    wanted = ["ray_jobs/train.py", "--recipe", "smoke", "--shards", drawn, "--out", out]
    assert finished(alike.start(*wanted), 300)["steps"] > 0
