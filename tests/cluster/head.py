"""A Ray cluster as a user starts one, by `ray start`: token, dashboard and all."""

import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import free_port, listens, wait_until


@dataclass(frozen=True)
class Head:
    """A running head: where its Jobs API is, what reaches it, and where it keeps its files."""

    url: str
    metrics: int  # the port of its figures
    variables: dict[str, str]
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "head.log").read_text()

    @property
    def token(self) -> str:
        return Path(self.variables["RAY_AUTH_TOKEN_PATH"]).read_text()

    @property
    def address(self) -> str:
        """Where other nodes and drivers join it, as its log tells."""
        found = re.search(r"--address='([^']+)'", self.log)
        assert found, self.log
        return found[1]

    def is_up(self, port: int) -> bool:
        return "Ray runtime started" in self.log and listens(port)


@contextmanager
def started(mode: str = "token") -> Iterator[Head]:
    """A head with that RAY_AUTH_MODE, gone again with all that runs on it."""
    # Not `tmp_path`: Ray's sockets live below it, and their paths may have at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="stbir-") as name:
        variables = _variables(Path(name))
        port, metrics = free_port(), free_port()
        with open(f"{name}/head.log", "w") as log:
            process = subprocess.Popen(
                _start(port, metrics, name),
                env=variables | {"RAY_AUTH_MODE": mode},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            head = Head(f"http://127.0.0.1:{port}", metrics, variables, Path(name))
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


def _start(dashboard: int, metrics: int, folder: str) -> list[str]:
    """Free ports for everything, so that it stands beside the other clusters of the machine."""
    ports = [
        "--port",
        "--ray-client-server-port",
        "--dashboard-agent-listen-port",
        "--dashboard-agent-grpc-port",
    ]
    chosen = [f"{name}={free_port()}" for name in ports]
    chosen += [f"--metrics-export-port={metrics}"]
    where = ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    size = ["--num-cpus=6", f"--object-store-memory={256 * 2**20}", f"--temp-dir={folder}/ray"]
    return ["ray", "start", "--head", "--block", "--disable-usage-stats", *where, *chosen, *size]
