"""A Ray cluster as a user starts one, token, dashboard and all."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import free_port, listens, wait_until


@dataclass(frozen=True)
class Head:
    """A running head: where its Jobs API is, what reaches it, and where it keeps its files."""

    url: str
    variables: dict[str, str]
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "head.log").read_text()

    def is_up(self, port: int) -> bool:
        return "Ray runtime started" in self.log and listens(port)


@pytest.fixture(scope="session")
def head(aws: None) -> Iterator[Head]:
    # Not `tmp_path`: Ray's sockets live below it, and their paths may have at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="stbir-") as name:
        variables = _variables(Path(name))
        port = free_port()
        with open(f"{name}/head.log", "w") as log:
            process = subprocess.Popen(
                _start(port, name), env=variables, stdout=log, stderr=log, start_new_session=True
            )
        try:
            head = Head(f"http://127.0.0.1:{port}", variables, Path(name))
            wait_until(lambda: process.poll() is not None or head.is_up(port), "the start of the head", 150)
            assert process.poll() is None, head.log
            yield head
        finally:
            # `ray stop` would stop every cluster of this machine, and a polite signal drains for 30 s.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10)


def _variables(folder: Path) -> dict[str, str]:
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(16))
    mine = {
        name: value for name, value in os.environ.items() if name not in ("RAY_AUTH_TOKEN", "RAY_ADDRESS")
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**mine, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PATH": path}


def _start(dashboard: int, folder: str) -> list[str]:
    """Free ports for everything, so that it stands beside the other clusters of the machine."""
    ports = [
        "--port",
        "--ray-client-server-port",
        "--dashboard-agent-listen-port",
        "--dashboard-agent-grpc-port",
    ]
    chosen = [f"{name}={free_port()}" for name in [*ports, "--metrics-export-port"]]
    where = ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    size = ["--num-cpus=6", f"--object-store-memory={256 * 2**20}", f"--temp-dir={folder}/ray"]
    return ["ray", "start", "--head", "--block", "--disable-usage-stats", *where, *chosen, *size]
