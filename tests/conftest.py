"""Shared fixtures: a local Ray cluster, an S3 server, shards, the real data set, commands."""

import contextlib
import json
import os
import random
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
# Scheduling slots, not cores: Ray Data needs some besides those of training workers and actors.
CLUSTER_CPUS = 6
BUCKET = "stbir-tests"


def _set_environment() -> None:
    """Set the variables that Ray reads at import, and that workers and subprocesses inherit.

    Ray requires a token by default; one made for this run leaves the home folder untouched.
    """
    assert "ray" not in sys.modules, "Ray was imported too early to see this environment"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    os.environ |= {"RAY_worker_niceness": "0"}  # as serve.environment sets it
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(16)
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
    os.environ.pop("RAY_ADDRESS", None)
    # `make test` runs tests in two processes, whose threads would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


# At import, not in a fixture: the conftest files of the folders below import Ray.
_set_environment()
# On a busy machine an example may exceed the default deadline.
settings.register_profile("stbir", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=10)  # of `make test-fast`
settings.load_profile("stbir")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test that needs Ray or Chromium, by its fixtures."""
    fixtures = set(getattr(item, "fixturenames", ()))
    if "ray_cluster" in fixtures:
        item.add_marker("ray")
    if "chromium" in fixtures:
        item.add_marker("browser")


def free_port() -> int:
    """A free TCP port of 127.0.0.1.

    It is between Ray's range for workers and the kernel's ephemeral range; a port of these could be taken
    before the server starts.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], bool], event: str, timeout_s: float = 30) -> None:
    """Poll until `condition()` is true; after the timeout fail the test with a message that names `event`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{event} did not happen within {timeout_s} s")
        time.sleep(0.1)


def is_listening(port: int) -> bool:
    """Whether something accepts connections on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def s3_server() -> Iterator[None]:
    """An S3 server on 127.0.0.1, configured by AWS_* variables alone, as for a user."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in _aws_variables(port).items():
            patch.setenv(name, value)
        try:
            wait_until(lambda: is_listening(port), "the start of the S3 server")
            yield
        finally:
            server.terminate()
            server.wait(timeout=10)


@pytest.fixture(scope="session")
def aws() -> Iterator[None]:
    """An S3 server for all tests."""
    with s3_server():
        yield


def _aws_variables(port: int) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }


@pytest.fixture(scope="session")
def s3(aws: None) -> str:
    """The URI of an S3 bucket; each test uses its own folder."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # instances made before the variables were set
    s3fs.S3FileSystem().mkdir(BUCKET)
    return f"s3://{BUCKET}"


@pytest.fixture(scope="session")
def ray_cluster(aws: None) -> Iterator[str]:
    """The address of this run's local Ray cluster, to which this process is connected.

    It starts after the S3 server, so that workers inherit the AWS_* variables.
    """
    import ray

    ray.init(
        "local",  # not a cluster that already runs on this machine
        num_cpus=CLUSTER_CPUS,
        object_store_memory=512 * 2**20,
        _system_config={"metrics_report_interval_ms": 1000},
        include_dashboard=False,
        log_to_driver=False,
        logging_level="warning",
    )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(scope="session")
def shards(ray_cluster: str, s3: str) -> str:
    """A few synthetic photos with sketches and captions, in train, val and test, in a bucket."""
    # Not at the top: this file sets variables that Ray reads at import.
    from ray_jobs.jobs.prepare_shards import prepare_shards
    from ray_jobs.prepare_shards import parser

    out = f"{s3}/synthetic"
    prepare_shards(parser().parse_args(["--source", "synthetic:48", "--out", out]))
    return out


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data sets (STBIR_DATA); without it, the test is skipped."""
    root = Path(os.environ.get("STBIR_DATA", ROOT.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no data sets at {root}; set STBIR_DATA")
    return root.resolve()


@dataclass(frozen=True)
class CommandResult:
    """Result of a command. `summary` is the JSON in its last line of standard output."""

    code: int
    stdout: str
    stderr: str

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads(self.stdout.strip().splitlines()[-1])
        return summary


def start_training(cluster: str, *arguments: str) -> subprocess.Popen[str]:
    """Start ray_jobs/train.py on a cluster, in a process that runs beside the test."""
    return subprocess.Popen(
        [sys.executable, "ray_jobs/train.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": cluster},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_command(name: str, *arguments: object, timeout: float = 240, **variables: str) -> CommandResult:
    """Run `python ray_jobs/<name>.py <arguments>` with extra environment `variables`."""
    completed = subprocess.run(
        [sys.executable, f"ray_jobs/{name}.py", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return CommandResult(completed.returncode, completed.stdout, completed.stderr)


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`milvus://127.0.0.1:PORT` of a Milvus server: milvus-lite, behind the protocol of a cluster."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, database, port = start_server_in_thread(str(tmp_path_factory.mktemp("milvus")), "127.0.0.1", 0)
    yield f"milvus://127.0.0.1:{port}"
    server.stop(grace=1).wait()
    database.close()
