"""Placement of work on the nodes of a cluster: node roles, label selectors, resource requests.

A node's role is the label `stbir-role`, as set in cluster.yaml.
"""

import math
import os
import sys
import time
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources

from stbir.errors import InputError

ROLE_LABEL = "stbir-role"  # values: head, data, accelerator
# Per encoder actor. Less than one CPU leaves the others of a small machine to the decode tasks.
ENCODER_CPUS = 0.5
_POLL_INTERVAL_S = 2.0


def label_selector(role: str) -> dict[str, str] | None:
    """Return the label selector for nodes of a role; None (any node) if no node has that role now.

    A selector that matches no node leaves its task pending for ever.
    """
    return {ROLE_LABEL: role} if has_role(role) else None


def has_role(role: str) -> bool:
    """Whether a node of that role is alive."""
    return any(node["Labels"].get(ROLE_LABEL) == role for node in _alive_nodes())


def total_resource(resource: str, role: str) -> int:
    """Total of a resource on the nodes that `label_selector(role)` selects."""
    nodes = _alive_nodes()
    of_role = [node for node in nodes if node["Labels"].get(ROLE_LABEL) == role]
    return _total(resource, of_role or nodes)


def largest_node(resource: str) -> int:
    """The largest amount of a resource on one node."""
    return _largest(resource, _alive_nodes())


def num_worker_nodes() -> int:
    """Number of nodes that can run tasks; a head node without CPUs cannot."""
    return sum(_largest("CPU", [node]) >= 1 for node in _alive_nodes())


def _alive_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _total(resource: str, nodes: list[dict[str, Any]]) -> int:
    return int(sum(node["Resources"].get(resource, 0) for node in nodes))


def _largest(resource: str, nodes: list[dict[str, Any]]) -> int:
    return max((_total(resource, [node]) for node in nodes), default=0)


def num_encoders(requested: int | None, gpu: str, timeout_s: float) -> int:
    """Number of encoder actors of an embedding job: as requested, else one per GPU, else one.

    `gpu` is yes, no or auto. First waits for the cluster to scale up.
    """
    minimum = requested or 1
    wait_for_resources(math.ceil(minimum * ENCODER_CPUS) + 1, minimum if gpu == "yes" else 0, timeout_s)
    return requested or (1 if gpu == "no" else max(1, total_resource("GPU", "accelerator")))


def require_resources(task: str, cpus: int, timeout_s: float, gpus: int = 0, bundle_cpus: int = 1) -> None:
    """Wait for resources as `wait_for_resources` does. Raises InputError if they are still missing.

    Resources that other jobs use count as present. The message names `task`.
    """
    wait_for_resources(cpus, gpus, timeout_s, bundle_cpus)
    nodes = _alive_nodes()
    if (available := _largest("CPU", nodes)) < bundle_cpus > 1:
        raise InputError(
            f"{task} needs {bundle_cpus} CPUs on one node, the largest has {available};"
            " request fewer, or start a larger node"
        )
    for resource, needed in (("CPU", cpus), ("GPU", gpus)):
        if (available := _total(resource, nodes)) < needed:
            raise InputError(
                f"{task} needs {needed} {resource}s, the cluster has {available};"
                f" start nodes with {resource}s (ray start --num-{resource.lower()}s=N)"
            )


def wait_for_resources(cpus: int, gpus: int, timeout_s: float, bundle_cpus: int = 1) -> None:
    """Request CPUs and GPUs from the autoscaler; return when they are there or after the timeout.

    `bundle_cpus` of the CPUs are on one node, which has the role "data" if nodes have roles. Returns at
    once if this command started Ray itself, because such a cluster does not scale.
    """
    if "RAY_ADDRESS" not in os.environ or _has_resources(cpus, gpus, bundle_cpus):
        return
    print(f"waiting up to {timeout_s:g} s for {cpus} CPUs and {gpus} GPUs in the cluster", file=sys.stderr)
    data = {ROLE_LABEL: "data"} if any(ROLE_LABEL in node["Labels"] for node in _alive_nodes()) else {}
    bundles, selectors = [{"CPU": bundle_cpus}, *[{"GPU": 1}] * gpus], [data, *[{}] * gpus]
    request_resources(num_cpus=cpus - bundle_cpus, bundles=bundles, bundle_label_selectors=selectors)
    deadline = time.monotonic() + timeout_s
    while not (_has_resources(cpus, gpus, bundle_cpus) and (has_role("data") or not data)):
        if time.monotonic() >= deadline:
            break
        time.sleep(min(_POLL_INTERVAL_S, timeout_s))
    request_resources(num_cpus=0)  # withdraw the request; running work keeps its nodes


def _has_resources(cpus: int, gpus: int, bundle_cpus: int) -> bool:
    nodes = _alive_nodes()
    enough = _total("CPU", nodes) >= cpus and _total("GPU", nodes) >= gpus
    return enough and _largest("CPU", nodes) >= bundle_cpus
