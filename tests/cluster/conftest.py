"""Ray clusters of these tests: a head started like a user's, and one whose nodes come and go."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stbir.data.shard_writer import publish, write_quarantine, write_rows
from stbir.data.sources.registry import open_source
from stbir.data.validation import validate_entry
from stbir.storage.folder import Folder
from tests.cluster.head import Head, running_head
from tests.cluster.network import NETEM, missing
from tests.cluster.nodes import Nodes, cluster_with_head
from tests.conftest import wait_until


def pytest_report_header() -> str:
    """Says on what network the nodes are."""
    kind = "one host" if "hosts" in missing() else "a network namespace each"
    return f"nodes: {kind}, {NETEM if not missing() else missing()}"


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
