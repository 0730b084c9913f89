"""Where on a cluster work belongs, and whether there is room for it yet.

Nodes say their role by a label, as those of cluster.yaml do.
"""

import sys
import time

import ray
from ray.autoscaler.sdk import request_resources

ROLE = "stbir-role"  # its values: head, data, accelerator
_LOOK_S = 2.0


def selector(role: str) -> dict[str, str] | None:
    """The label selector of work for nodes of that role; None where no node of the cluster has a role."""
    return {ROLE: role} if _roles() else None


def has(role: str) -> bool:
    """Whether a node of that role is there now."""
    return role in _roles()


def _roles() -> set[str]:
    labels = [node["Labels"] for node in ray.nodes() if node["Alive"]]
    return {found[ROLE] for found in labels if ROLE in found}


def await_room(cpus: int, gpus: int, seconds: float) -> None:
    """Have the cluster grow to so many CPUs and GPUs; return when it has, or after so many seconds."""
    if _room(cpus, gpus):
        return
    print(f"waiting up to {seconds:g} s for {cpus} CPUs and {gpus} GPUs in the cluster", file=sys.stderr)
    request_resources(num_cpus=cpus, bundles=[{"GPU": 1}] * gpus)
    deadline = time.monotonic() + seconds
    while not _room(cpus, gpus) and time.monotonic() < deadline:
        time.sleep(min(_LOOK_S, seconds))
    request_resources(num_cpus=0)  # what is used from here on keeps its nodes


def _room(cpus: int, gpus: int) -> bool:
    there = ray.cluster_resources()
    return bool(there.get("CPU", 0) >= cpus and there.get("GPU", 0) >= gpus)
