"""Nodes of a cluster that tests add and remove: on hosts of their own where possible, or on this one."""

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from tests.cluster.head import WITHOUT_DASHBOARD, Head, kill, ray_start, running_head
from tests.cluster.network import Network, OneHost, open_network
from tests.conftest import ROOT
from tests.documented_commands import documented

# Ports of workers are chosen by the kernel, as several nodes may share the machine.
SMALL = [f"--object-store-memory={128 * 2**20}", "--min-worker-port=0", "--max-worker-port=0"]


@dataclass(frozen=True)
class Node:
    """A node that is not the head."""

    process: subprocess.Popen[bytes]

    @property
    def raylet(self) -> psutil.Process:
        """The process above its workers."""
        children = psutil.Process(self.process.pid).children()
        [raylet] = [child for child in children if child.name() == "raylet"]
        return raylet

    @property
    def node_id(self) -> str:
        """Ray's name of the node."""
        [name] = re.findall(r"--node_id=(\w+)", " ".join(self.raylet.cmdline()))
        return str(name)

    def workers(self, title: str) -> list[psutil.Process]:
        """The processes below the raylet whose title contains `title`."""
        return [child for child in self.raylet.children(recursive=True) if _has_title(child, title)]


def _has_title(process: psutil.Process, title: str) -> bool:
    try:
        return title in " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return False


@dataclass
class Nodes:
    """A head, and nodes of the size of one worker."""

    head: Head
    network: Network | OneHost
    alive: list[Node] = field(default_factory=list)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def add(self, role: str = "accelerator", cpus: int = 1) -> Node:
        """Add a node and wait until it has joined."""
        [command] = documented("docs/operate.md", "ray start --address")
        resources = json.dumps({"worker": 1} if role == "accelerator" else {})
        kind = [f"--num-cpus={cpus}", f"--labels=stbir-role={role}", f"--resources={resources}"]
        kind += ["--include-log-monitor=false"]  # that of the head reads the same folder
        log = self.head.folder / f"node{time.monotonic_ns()}.log"
        join = shlex.split(command.replace("HEAD:6379", self.head.address))
        with self.network.new_host() as address:
            process = ray_start(
                [*join, *kind, *SMALL, f"--node-ip-address={address}"], self.head.variables, log
            )
        self.alive.append(Node(process))
        return self.alive[-1]

    def remove_node(self, node: Node) -> None:
        """Kill every process of a node, without notice."""
        self.alive.remove(node)
        kill(node.process)

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        """Start a command of the project on the head in the background."""
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**self.head.variables, "RAY_ADDRESS": self.head.address, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process


@contextmanager
def cluster_with_head(role: str, cpus: int) -> Iterator[Nodes]:
    """A head with that role and number of CPUs; stopped at the end with all its processes."""
    size = [f"--labels=stbir-role={role}", f"--num-cpus={cpus}", *SMALL, WITHOUT_DASHBOARD]
    with open_network() as network:
        address = network.attach()
        with running_head("token", *size, f"--node-ip-address={address}") as head:
            nodes = Nodes(head, network)
            try:
                yield nodes
            finally:
                for process in nodes.processes:
                    process.kill()
                    process.communicate()
                for node in nodes.alive:
                    kill(node.process)
