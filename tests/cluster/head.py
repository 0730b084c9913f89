"""Nodes started with `ray start` as in docs/operate.md: a head with token and dashboard, and others."""

import contextlib
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import free_port, is_listening, wait_until
from tests.documented_commands import documented

START_TIMEOUT_S = 150
WITHOUT_DASHBOARD = "--include-dashboard=false"


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


@contextmanager
def running_head(mode: str = "token", *options: str) -> Iterator[Head]:
    """A head with that RAY_AUTH_MODE and more options of `ray start`; killed at the end."""
    # Not `tmp_path`: paths of Ray's sockets may have at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="stbir-") as name:
        variables = _variables(Path(name))
        port, metrics = free_port(), free_port()
        [command] = documented("docs/operate.md", "ray start --head")
        process = ray_start(
            [*shlex.split(command), *_head_options(port, metrics, name), *options],
            variables | {"RAY_AUTH_MODE": mode},
            Path(name) / "head.log",
        )
        try:
            if WITHOUT_DASHBOARD not in options:
                wait_until(lambda: is_listening(port), "the start of the dashboard", START_TIMEOUT_S)
            yield Head(f"http://127.0.0.1:{port}", metrics, variables, Path(name))
        finally:
            kill(process)


def ray_start(command: list[str], variables: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Run `ray start` with free ports, as several nodes may share the machine, until its node has joined."""
    ports = [
        f"{name}={free_port()}" for name in ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port")
    ]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--block", *ports], env=variables, stdout=file, stderr=file, start_new_session=True
        )

    def has_joined() -> bool:
        return "Ray runtime started" in log.read_text()

    try:
        wait_until(lambda: process.poll() is not None or has_joined(), "the start of a node", START_TIMEOUT_S)
        assert process.poll() is None, log.read_text()
    except BaseException:
        kill(process)
        raise
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process of `ray_start` with the processes of its node, without notice."""
    # `ray stop` stops every cluster of this machine, and SIGTERM drains for 30 s.
    with contextlib.suppress(ProcessLookupError):  # all have ended
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


def _head_options(dashboard: int, metrics: int, folder: str) -> list[str]:
    chosen = [f"--port={free_port()}", f"--ray-client-server-port={free_port()}"]
    chosen += [f"--dashboard-port={dashboard}", f"--metrics-export-port={metrics}"]
    size = ["--num-cpus=6", f"--object-store-memory={256 * 2**20}", f"--temp-dir={folder}/ray"]
    return ["--disable-usage-stats", *chosen, *size]
