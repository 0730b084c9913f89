"""Where work goes on clusters of other shapes than this machine's; their nodes are told as Ray tells them."""

from collections.abc import Callable
from typing import Any

import pytest

from ray_jobs.cluster import placement, requirements
from ray_jobs.cluster.placement import ROLE
from ray_jobs.embedding import pipeline
from ray_jobs.embedding.pipeline import _Decoding
from stbir.errors import InputError

Nodes = list[dict[str, Any]]
Cluster = Callable[..., Nodes]


def node(role: str | None = None, **resources: int) -> dict[str, Any]:
    return {"Labels": {ROLE: role} if role else {}, "Resources": resources, "Alive": True}


HEAD = node("head", CPU=0)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """`cluster(node, …)` are the nodes from now on; what it returns may grow."""

    def of(*nodes: dict[str, Any]) -> Nodes:
        there = [*nodes, {**node("data", CPU=64), "Alive": False}]
        monkeypatch.setattr(placement.ray, "nodes", lambda: there)
        return there

    return of


def test_work_keeps_to_the_nodes_of_its_role_where_there_are_some(cluster: Cluster) -> None:
    cluster(HEAD, node("data", CPU=16), node("accelerator", CPU=8, GPU=1), node(CPU=4, GPU=2))
    assert placement.selector("data") == {ROLE: "data"}
    assert [placement.amount("CPU", role) for role in ("data", "accelerator")] == [16, 8]
    assert placement.amount("GPU", "accelerator") == 1


@pytest.mark.parametrize("role", ["accelerator", None])
def test_what_no_node_may_take_goes_anywhere(cluster: Cluster, role: str | None) -> None:
    cluster(HEAD, node(role, CPU=8, GPU=1), node(role, CPU=8, GPU=1))
    assert placement.selector("data") is None
    assert placement.amount("CPU", "data") == 16
    assert placement.amount("GPU", "accelerator") == 2


def test_cpus_that_may_not_decode_do_not_count(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements.ray, "cluster_resources", lambda: {"CPU": 33.0})
    cluster(HEAD, node("data", CPU=1), node("accelerator", CPU=32, GPU=1))
    with pytest.raises(InputError, match=f"needs 2 CPUs on nodes with the label {ROLE}=data, there are 1"):
        requirements._cpus(workers=1, decoders=2)
    assert requirements._cpus(workers=1, decoders=1) == "33, 1 of them left for decoding"


Asked = list[dict[str, Any]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What was asked of the autoscaler, which here has no answer."""
    calls: Asked = []
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(placement, "request_resources", lambda **request: calls.append(request))
    monkeypatch.setattr(placement, "_LOOK_S", 0.001)
    return calls


def test_a_cluster_at_zero_is_asked_for_a_node_to_decode_on(
    cluster: Cluster, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = cluster(HEAD)
    coming = iter([node("accelerator", CPU=16, GPU=1), node("data", CPU=16)])
    monkeypatch.setattr(placement.time, "sleep", lambda _: there.append(next(coming)))
    placement.await_room(cpus=3, gpus=1, seconds=60)
    assert placement.has("data")
    assert asked == [
        {
            "num_cpus": 2,
            "bundles": [{"CPU": 1}, {"GPU": 1}],
            "bundle_label_selectors": [{ROLE: "data"}, {}],
        },
        {"num_cpus": 0},
    ]


def test_nobody_waits_where_there_is_room_already(cluster: Cluster, asked: Asked) -> None:
    cluster(HEAD, node("accelerator", CPU=16, GPU=1))
    placement.await_room(cpus=3, gpus=1, seconds=60)
    assert asked == []


def test_a_ray_of_ones_own_is_not_waited_for(
    cluster: Cluster, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS")
    cluster(HEAD)
    placement.await_room(cpus=3, gpus=1, seconds=60)
    assert asked == []


@pytest.mark.parametrize(
    ("there", "needs", "says"),
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
            {"cpus": 4, "together": 4},
            "work needs 4 CPUs of one node, the largest has 3; give fewer",
        ),
    ],
)
def test_what_is_still_missing_after_the_wait_is_refused(
    cluster: Cluster, asked: Asked, there: Nodes, needs: dict[str, int], says: str
) -> None:
    cluster(*there)
    with pytest.raises(InputError, match=says):
        placement.demand_room("work", wait=0.01, **needs)
    assert len(asked) == 2  # for room, and after the wait for nothing more


def test_what_comes_in_time_is_not_refused(
    cluster: Cluster, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = cluster(HEAD)
    coming = iter([node("data", CPU=2), node("data", CPU=2), node("data", CPU=4)])
    monkeypatch.setattr(placement.time, "sleep", lambda _: there.append(next(coming)))
    placement.demand_room("a trial", 4, wait=60, together=4)
    assert next(coming, None) is None  # two nodes of half the size are not enough
    assert asked[0] == {"num_cpus": 0, "bundles": [{"CPU": 4}], "bundle_label_selectors": [{ROLE: "data"}]}
    placement.demand_room("two tasks", 8, wait=60)


def test_a_head_without_cpus_is_no_machine(cluster: Cluster) -> None:
    there = cluster(HEAD, node(CPU=4))
    assert placement.machines() == 1
    there.append(node("accelerator", CPU=1, GPU=1))
    assert placement.machines() == 2


def test_an_embedding_job_takes_the_gpus_there_are_or_those_it_is_told_to_wait_for(
    cluster: Cluster, asked: Asked
) -> None:
    cluster(HEAD, node("data", CPU=4), node("accelerator", CPU=4, GPU=2))
    assert [placement.towers(None, gpu, 0) for gpu in ("auto", "yes", "no")] == [2, 2, 1]
    assert asked == []
    assert placement.towers(3, "yes", wait=0) == 3
    assert asked[0]["bundles"] == [{"CPU": 1}, *[{"GPU": 1}] * 3]


def test_the_window_of_an_embedding_job_grows_with_the_cluster(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_LOOK_S", 0.0)
    there = cluster(HEAD)
    decoding = _Decoding(towers=1)
    assert decoding.window == 2
    there.append(node("data", CPU=16))
    decoding.look()
    assert decoding.window == 18
