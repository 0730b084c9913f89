"""What the tests of several commands share."""

import pytest
import ray


@pytest.fixture
def no_cpus(ray_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared cluster as one would be that is a head without CPUs and nothing else."""
    [node] = ray.nodes()
    monkeypatch.setattr(ray, "nodes", lambda: [{**node, "Resources": {}}])
