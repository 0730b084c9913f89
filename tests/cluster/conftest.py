"""Ray clusters of these tests: a head as a user starts it, and nodes of one machine, to lose."""

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
from stbir.data.validation import inspect
from stbir.storage.folder import Folder
from tests.cluster.head import Head, started
from tests.conftest import ROOT, wait_until

MEMORY = 128 * 2**20  # of each node's object store


@dataclass
class Nodes:
    """A head that holds the data's work, and nodes that come and go, one worker's size each."""

    cluster: Cluster
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, role: str = "accelerator", cpus: int = 1) -> Any:
        """One more node, there at once."""
        return self.cluster.add_node(
            num_cpus=cpus,
            labels={"stbir-role": role},
            resources={"worker": 1} if role == "accelerator" else {},
            object_store_memory=MEMORY,
            include_dashboard=False,
        )

    def lose(self, node: Any) -> None:
        """Kill every process of a node: nobody is told."""
        self.cluster.remove_node(node, allow_graceful=False)

    def workers(self, node: Any, title: str) -> list[psutil.Process]:
        """The processes of a node whose title holds a word."""
        [raylet] = node.all_processes["raylet"]
        children = psutil.Process(raylet.process.pid).children(recursive=True)
        return [child for child in children if _is(child, title)]

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        """A command of the project on these nodes, in a process of its own that goes on beside the test."""
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, "RAY_ADDRESS": self.address, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process


def _is(process: psutil.Process, title: str) -> bool:
    try:
        return title in " ".join(process.cmdline())
    except psutil.Error:  # it ended meanwhile
        return False


def finished(process: subprocess.Popen[str], seconds: float) -> dict[str, Any]:
    """The JSON that a command ends with; the test fails with its words where it did not succeed."""
    stdout, stderr = process.communicate(timeout=seconds)
    assert process.returncode == 0, stderr[-3000:]
    summary: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return summary


def wait_beside(process: subprocess.Popen[str], ready: Any, what: str, seconds: float) -> None:
    """Wait for something while a command goes on; it must not have ended before."""
    wait_until(lambda: ready() or process.poll() is not None, what, seconds)
    assert process.poll() is None, process.communicate()[1][-3000:]


@pytest.fixture(scope="session")
def head(aws: None) -> Iterator[Head]:
    with started() as running:
        yield running


@contextmanager
def headed(role: str, cpus: int) -> Iterator[Nodes]:
    """A head of that role with so many CPUs, gone again with all that was started beside it."""
    head = {"num_cpus": cpus, "labels": {"stbir-role": role}, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**head, "object_store_memory": MEMORY})
    found = Nodes(cluster)
    try:
        yield found
    finally:
        for process in found.started:
            process.kill()
            process.communicate()
        cluster.shutdown()


@pytest.fixture
def nodes(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """A head with three CPUs for data, or as many as a test asks for by an indirect parameter."""
    with headed("data", getattr(request, "param", 3)) as found:
        yield found


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> str:
    """200 drawn photos on this machine's disk, which all nodes share."""
    folder = Folder(str(tmp_path_factory.mktemp("drawn") / "shards"))
    source = open_source("synthetic:200")
    rows = (inspect(entry, source.read, ())[0] for entry in source.entries)
    write_quarantine(folder, [])
    publish(folder, [write_rows(folder, 0, (row for row in rows if row is not None))], {"photos": 200}, {})
    return folder.uri


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "checkpoint")
