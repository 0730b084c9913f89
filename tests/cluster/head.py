"""A Ray cluster started with `ray start`, with token and dashboard."""

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

from tests.conftest import free_port, is_listening, wait_until


@dataclass(frozen=True)
class Head:
    """A running head: URL of its Jobs API, environment of its clients, folder of its files."""

    url: str
    metrics: int  # port of its metrics
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
        """The address for other nodes and drivers, from its log."""
        match = re.search(r"--address='([^']+)'", self.log)
        assert match, self.log
        return match[1]

    def is_up(self, port: int) -> bool:
        return "Ray runtime started" in self.log and is_listening(port)


@contextmanager
def running_head(mode: str = "token") -> Iterator[Head]:
    """A head with that RAY_AUTH_MODE; killed at the end with all its processes."""
    # Not `tmp_path`: paths of Ray's sockets may have at most 107 characters.
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
            # `ray stop` stops every cluster of this machine, and SIGTERM drains for 30 s.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10)


def _variables(folder: Path) -> dict[str, str]:
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(16))
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("RAY_AUTH_TOKEN", "RAY_ADDRESS")
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**inherited, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PATH": path}


def _start(dashboard: int, metrics: int, folder: str) -> list[str]:
    """`ray start` with free ports, so that several clusters can run on the machine."""
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
