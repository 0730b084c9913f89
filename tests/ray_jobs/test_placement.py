"""Placement on clusters of other shapes than this machine; `ray.nodes` is replaced."""

from collections.abc import Callable
from typing import Any

import pytest

from ray_jobs.cluster import placement, requirements
from ray_jobs.cluster.placement import ROLE_LABEL
from ray_jobs.embedding import pipeline
from ray_jobs.embedding.pipeline import _DecodeScheduler
from stbir.errors import InputError

Nodes = list[dict[str, Any]]
Cluster = Callable[..., Nodes]


def node(role: str | None = None, **resources: int) -> dict[str, Any]:
    return {"Labels": {ROLE_LABEL: role} if role else {}, "Resources": resources, "Alive": True}


HEAD = node("head", CPU=0)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """`cluster(node, …)` sets the nodes of the cluster; append to the returned list to add some."""

    def set_nodes(*nodes: dict[str, Any]) -> Nodes:
        current = [*nodes, {**node("data", CPU=64), "Alive": False}]
        monkeypatch.setattr(placement.ray, "nodes", lambda: current)
        return current

    return set_nodes


def test_role_selects_its_nodes(cluster: Cluster) -> None:
    cluster(HEAD, node("data", CPU=16), node("accelerator", CPU=8, GPU=1), node(CPU=4, GPU=2))
    assert placement.label_selector("data") == {ROLE_LABEL: "data"}
    assert [placement.total_resource("CPU", role) for role in ("data", "accelerator")] == [16, 8]
    assert placement.total_resource("GPU", "accelerator") == 1


@pytest.mark.parametrize("role", ["accelerator", None])
def test_role_without_nodes_selects_all_nodes(cluster: Cluster, role: str | None) -> None:
    cluster(HEAD, node(role, CPU=8, GPU=1), node(role, CPU=8, GPU=1))
    assert placement.label_selector("data") is None
    assert placement.total_resource("CPU", "data") == 16
    assert placement.total_resource("GPU", "accelerator") == 2


def test_decoding_needs_cpus_on_data_nodes(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements.ray, "cluster_resources", lambda: {"CPU": 33.0})
    cluster(HEAD, node("data", CPU=1), node("accelerator", CPU=32, GPU=1))
    with pytest.raises(
        InputError, match=f"needs 2 CPUs on nodes with the label {ROLE_LABEL}=data, the cluster has 1"
    ):
        requirements._cpus("1 workers", 1, decoders=2)
    assert requirements._cpus("1 workers", 1, decoders=1) == "33, of which 1 for decoding"


Requests = list[dict[str, Any]]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Requests:
    """The requests to the autoscaler, which adds no nodes here."""
    calls: Requests = []
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(placement, "request_resources", lambda **request: calls.append(request))
    monkeypatch.setattr(placement, "_POLL_INTERVAL_S", 0.001)
    return calls


def test_empty_cluster_is_scaled_up_with_a_data_node(
    cluster: Cluster, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = cluster(HEAD)
    new_nodes = iter([node("accelerator", CPU=16, GPU=1), node("data", CPU=16)])
    monkeypatch.setattr(placement.time, "sleep", lambda _: nodes.append(next(new_nodes)))
    placement.wait_for_resources(cpus=3, gpus=1, timeout_s=60)
    assert placement.has_role("data")
    assert requests == [
        {
            "num_cpus": 2,
            "bundles": [{"CPU": 1}, {"GPU": 1}],
            "bundle_label_selectors": [{ROLE_LABEL: "data"}, {}],
        },
        {"num_cpus": 0},
    ]


def test_available_resources_are_not_requested(cluster: Cluster, requests: Requests) -> None:
    cluster(HEAD, node("accelerator", CPU=16, GPU=1))
    placement.wait_for_resources(cpus=3, gpus=1, timeout_s=60)
    assert requests == []


def test_local_ray_is_not_scaled_up(
    cluster: Cluster, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS")
    cluster(HEAD)
    placement.wait_for_resources(cpus=3, gpus=1, timeout_s=60)
    assert requests == []


@pytest.mark.parametrize(
    ("nodes", "needs", "message"),
    [
        ([HEAD], {"cpus": 1}, "work needs 1 CPUs, the cluster has 0; start nodes with CPUs"),
        ([HEAD, node(CPU=1)], {"cpus": 2}, "work needs 2 CPUs, the cluster has 1; start nodes with CPUs"),
        (
            [HEAD, node(CPU=8)],
            {"cpus": 1, "gpus": 2},
            "work needs 2 GPUs, the cluster has 0; start nodes with",
        ),
        (
            [node(CPU=2), node(CPU=3)],
            {"cpus": 4, "bundle_cpus": 4},
            "work needs 4 CPUs on one node, the largest has 3; request fewer",
        ),
    ],
)
def test_missing_resources_are_an_error_after_the_timeout(
    cluster: Cluster, requests: Requests, nodes: Nodes, needs: dict[str, int], message: str
) -> None:
    cluster(*nodes)
    with pytest.raises(InputError, match=message):
        placement.require_resources("work", timeout_s=0.01, **needs)
    assert len(requests) == 2  # the request, and its end after the timeout


def test_resources_added_in_time_are_accepted(
    cluster: Cluster, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = cluster(HEAD)
    new_nodes = iter([node("data", CPU=2), node("data", CPU=2), node("data", CPU=4)])
    monkeypatch.setattr(placement.time, "sleep", lambda _: nodes.append(next(new_nodes)))
    placement.require_resources("a trial", 4, timeout_s=60, bundle_cpus=4)
    assert next(new_nodes, None) is None  # two nodes of half the size do not suffice
    assert requests[0] == {
        "num_cpus": 0,
        "bundles": [{"CPU": 4}],
        "bundle_label_selectors": [{ROLE_LABEL: "data"}],
    }
    placement.require_resources("two tasks", 8, timeout_s=60)


def test_head_without_cpus_is_not_a_worker_node(cluster: Cluster) -> None:
    nodes = cluster(HEAD, node(CPU=4))
    assert placement.num_worker_nodes() == 1
    nodes.append(node("accelerator", CPU=1, GPU=1))
    assert placement.num_worker_nodes() == 2


def test_number_of_encoders_follows_gpus_or_the_request(cluster: Cluster, requests: Requests) -> None:
    cluster(HEAD, node("data", CPU=4), node("accelerator", CPU=4, GPU=2))
    assert [placement.num_encoders(None, gpu, 0) for gpu in ("auto", "yes", "no")] == [2, 2, 1]
    assert requests == []
    assert placement.num_encoders(3, "yes", timeout_s=0) == 3
    assert requests[0]["bundles"] == [{"CPU": 1}, *[{"GPU": 1}] * 3]


def test_window_of_an_embedding_job_grows_with_the_cluster(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_REFRESH_INTERVAL_S", 0.0)
    nodes = cluster(HEAD)
    decoding = _DecodeScheduler(num_encoders=1)
    assert decoding.window == 2
    nodes.append(node("data", CPU=16))
    decoding.refresh()
    assert decoding.window == 18
