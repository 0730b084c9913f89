"""`ray job submit` against a real `ray start --head`, token and all, as docs/operations.md tells it."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from stbir.data.manifest import read_manifest
from stbir.data.storage import Folder
from tests.conftest import ROOT, free_port, listens, wait_until

# A second Ray cluster starts, with its dashboard, and a training job in it.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CODE = {"stbir", "ray_jobs", "serve", "stbir_client", "runs", "benchmarks"}
SMALL = 2**20  # bytes; the package is the code, so no more than that


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


@pytest.fixture(scope="module")
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


def _submit(head: Head, *entry: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ray", "job", "submit", f"--address={head.url}", "--working-dir=.", "--", *entry],
        cwd=ROOT,
        env=head.variables,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def test_training_is_a_job_and_its_package_is_code_alone(head: Head, shards: str, tmp_path: Path) -> None:
    out = str(tmp_path / "checkpoint")
    done = _submit(head, "python", "ray_jobs/train.py", "--recipe", "smoke", "--shards", shards, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr + head.log
    counts = read_manifest(Folder(out), "checkpoint").counts
    assert counts["steps"] == counts["total"] > 0

    (package,) = head.folder.glob("ray/session_latest/runtime_resources/working_dir_files/_ray_pkg_*/")
    files = [file.relative_to(package) for file in package.rglob("*") if file.is_file()]
    size = sum((package / file).stat().st_size for file in files)
    print(f"package: {len(files)} files, {size} bytes")
    assert size < SMALL
    folders = {file.parts[0] for file in files if len(file.parts) > 1 and "__pycache__" not in file.parts}
    assert folders <= CODE


def test_the_jobs_api_wants_the_token(head: Head) -> None:
    jobs = f"{head.url}/api/jobs/"
    token = Path(head.variables["RAY_AUTH_TOKEN_PATH"]).read_text()
    assert httpx.get(jobs, trust_env=False).status_code == 401
    wrong = {"Authorization": f"Bearer {token[::-1]}"}
    assert httpx.get(jobs, headers=wrong, trust_env=False).status_code in (401, 403)
    assert httpx.get(jobs, headers={"Authorization": f"Bearer {token}"}, trust_env=False).status_code == 200
