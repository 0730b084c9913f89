"""Ray clusters of these tests: a head started like a user's, and removable nodes on one machine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.cluster_utils import Cluster

from stbir.data.shard_writer import publish, write_quarantine, write_rows
from stbir.data.sources.registry import open_source
from stbir.data.validation import validate_entry
from stbir.storage.folder import Folder
from tests.cluster.head import Head, running_head
from tests.conftest import ROOT, wait_until

OBJECT_STORE_BYTES = 128 * 2**20  # of each node


@dataclass
class Nodes:
    """A head, and nodes of the size of one worker that tests add and remove."""

    cluster: Cluster
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, role: str = "accelerator", cpus: int = 1) -> Any:
        """Add a node and wait until it has joined."""
        return self.cluster.add_node(
            num_cpus=cpus,
            labels={"stbir-role": role},
            resources={"worker": 1} if role == "accelerator" else {},
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
        )

    def remove_node(self, node: Any) -> None:
        """Kill every process of a node, without notice."""
        self.cluster.remove_node(node, allow_graceful=False)

    def workers(self, node: Any, title: str) -> list[psutil.Process]:
        """The processes of a node whose title contains `title`."""
        [raylet] = node.all_processes["raylet"]
        children = psutil.Process(raylet.process.pid).children(recursive=True)
        return [child for child in children if _has_title(child, title)]

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        """Start a command of the project on these nodes in the background."""
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, "RAY_ADDRESS": self.address, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process


def _has_title(process: psutil.Process, title: str) -> bool:
    try:
        return title in " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return False


def finished(process: subprocess.Popen[str], seconds: float) -> dict[str, Any]:
    """Wait for a command; its summary. Fails with its stderr if it failed."""
    stdout, stderr = process.communicate(timeout=seconds)
    assert process.returncode == 0, stderr[-3000:]
    summary: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return summary


def wait_while_running(process: subprocess.Popen[str], ready: Any, what: str, seconds: float) -> None:
    """Wait until `ready()`; the command must still be running then."""
    wait_until(lambda: ready() or process.poll() is not None, what, seconds)
    assert process.poll() is None, process.communicate()[1][-3000:]


@pytest.fixture(scope="session")
def head(aws: None) -> Iterator[Head]:
    with running_head() as running:
        yield running


@contextmanager
def cluster_with_head(role: str, cpus: int) -> Iterator[Nodes]:
    """A head with that role and number of CPUs; stopped at the end with all its processes."""
    head = {"num_cpus": cpus, "labels": {"stbir-role": role}, "include_dashboard": False}
    cluster = Cluster(
        initialize_head=True, head_node_args={**head, "object_store_memory": OBJECT_STORE_BYTES}
    )
    nodes = Nodes(cluster)
    try:
        yield nodes
    finally:
        for process in nodes.processes:
            process.kill()
            process.communicate()
        cluster.shutdown()


@pytest.fixture
def nodes(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """A `data` head with three CPUs, or the number given as an indirect parameter."""
    with cluster_with_head("data", getattr(request, "param", 3)) as nodes:
        yield nodes


@pytest.fixture(scope="session")
def synthetic_shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """SHARDS of 200 synthetic photos on the local disk, which all nodes share."""
    folder = Folder(str(tmp_path_factory.mktemp("synthetic") / "shards"))
    source = open_source("synthetic:200")
    rows = (validate_entry(entry, source.read, ())[0] for entry in source.entries)
    write_quarantine(folder, [])
    publish(folder, [write_rows(folder, 0, (row for row in rows if row is not None))], {"photos": 200}, {})
    return folder.uri


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "checkpoint")
