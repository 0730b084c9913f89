"""Where on a cluster work belongs, and whether there is room for it yet.

Nodes say their role by a label, as those of cluster.yaml do.
"""

import math
import os
import sys
import time
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources

from stbir.errors import InputError

ROLE = "stbir-role"  # its values: head, data, accelerator
# Of an encoder. Less than a whole one: on a small machine the tasks that decode keep theirs.
TOWER_CPUS = 0.5
_LOOK_S = 2.0


def selector(role: str) -> dict[str, str] | None:
    """The label selector of work for nodes of that role; None, which is any node, where none has it now: what
    nobody can take would wait for ever."""
    return {ROLE: role} if has(role) else None


def has(role: str) -> bool:
    """Whether a node of that role is there now."""
    return any(node["Labels"].get(ROLE) == role for node in _nodes())


def amount(resource: str, role: str) -> int:
    """How much of a resource there is now where work for that role goes, as `selector` has it."""
    nodes = _nodes()
    of_role = [node for node in nodes if node["Labels"].get(ROLE) == role]
    return _sum(resource, of_role or nodes)


def machines() -> int:
    """How many nodes there are now that may work: a head without CPUs is none of them."""
    return sum(_largest("CPU", [node]) >= 1 for node in _nodes())


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _sum(resource: str, nodes: list[dict[str, Any]]) -> int:
    return int(sum(node["Resources"].get(resource, 0) for node in nodes))


def _largest(resource: str, nodes: list[dict[str, Any]]) -> int:
    return max((_sum(resource, [node]) for node in nodes), default=0)


def towers(wanted: int | None, gpu: str, wait: float) -> int:
    """How many encoders an embedding job has: as many as are wanted, or one a GPU, or one. `gpu` is yes, no
    or auto. A cluster has so many seconds to grow before."""
    least = wanted or 1
    await_room(math.ceil(least * TOWER_CPUS) + 1, least if gpu == "yes" else 0, wait)
    return wanted or (1 if gpu == "no" else max(1, amount("GPU", "accelerator")))


def demand_room(what: str, cpus: int, wait: float, gpus: int = 0, together: int = 1) -> None:
    """As `await_room`, and raise InputError where they are not there then either: it says that `what` lacks
    them. Work that no node can take would wait for ever. What others use is there: it will be free again."""
    await_room(cpus, gpus, wait, together)
    nodes = _nodes()
    if (there := _largest("CPU", nodes)) < together > 1:
        raise InputError(
            f"{what} needs {together} CPUs of one node, the largest has {there};"
            " give fewer, or start a larger node"
        )
    for resource, needed in (("CPU", cpus), ("GPU", gpus)):
        if (there := _sum(resource, nodes)) < needed:
            raise InputError(
                f"{what} needs {needed} {resource}s, the cluster has {there};"
                f" start nodes with {resource}s (ray start --num-{resource.lower()}s=N)"
            )


def await_room(cpus: int, gpus: int, seconds: float, together: int = 1) -> None:
    """Have the cluster grow to so many CPUs, `together` of them on a node for data, and GPUs; return when it
    has, or after so many seconds. A Ray of the command's own, which is no cluster that it joined, does not
    grow."""
    if "RAY_ADDRESS" not in os.environ or _room(cpus, gpus, together):
        return
    print(f"waiting up to {seconds:g} s for {cpus} CPUs and {gpus} GPUs in the cluster", file=sys.stderr)
    data = {ROLE: "data"} if any(ROLE in node["Labels"] for node in _nodes()) else {}
    bundles = [{"CPU": together}, *[{"GPU": 1}] * gpus]
    request_resources(num_cpus=cpus - together, bundles=bundles, bundle_label_selectors=[data, *[{}] * gpus])
    deadline = time.monotonic() + seconds
    while not (_room(cpus, gpus, together) and (has("data") or not data)) and time.monotonic() < deadline:
        time.sleep(min(_LOOK_S, seconds))
    request_resources(num_cpus=0)  # what is used from here on keeps its nodes


def _room(cpus: int, gpus: int, together: int) -> bool:
    nodes = _nodes()
    enough = _sum("CPU", nodes) >= cpus and _sum("GPU", nodes) >= gpus
    return enough and _largest("CPU", nodes) >= together
