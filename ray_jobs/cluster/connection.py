"""The Ray connection of a command: to the cluster at RAY_ADDRESS, or to a local one that it starts."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import ray._private.node
import ray.data

from ray_jobs.cluster import requirements
from ray_jobs.cluster.checks import enforce
from stbir.errors import InputError

log = logging.getLogger(__name__)
# Scheduling slots of a local Ray, not cores. Ray Data needs CPUs besides those that workers and actors
# hold; without any it waits for ever.
MIN_CPUS = 4
# For all attempts to start a local Ray. One attempt may take Ray a minute and more.
START_TIMEOUT_S = 90.0
LATE_START = (
    f"Ray: its processes do not start within {START_TIMEOUT_S:g} s, because this machine is busy;"
    " end other work on it, or start a cluster once (ray start --head) and set RAY_ADDRESS to its address"
)
_WAIT_MS = 500
_MIB = 2**20

# Turns off usage reports and a warning. Values that the user has set take precedence.
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def connect() -> None:
    """Connect to Ray and run the checks that every job needs. Raises InputError if something is missing."""
    if not ray.is_initialized():
        init_ray()
        enforce([*requirements.cluster()])


def init_ray() -> None:
    """Connect to the cluster at RAY_ADDRESS (set in a submitted job), else start a local one.

    Raises InputError if no cluster answers at RAY_ADDRESS.
    """
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # Ray forks only to execute its own programs, which does not affect Lance's threads.
    warnings.filterwarnings("ignore", message="lance is not fork-safe")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    _connect_or_start(os.environ.get("RAY_ADDRESS"), log_to_driver=False, logging_level="error")
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray has replaced it


def _connect_or_start(address: str | None, **options: Any) -> None:
    if address is None:
        _start(**options)
        return
    try:
        _check_reachable(address)
        ray.init(address=address, **options)
        _print_code_size()
    except ConnectionError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"RAY_ADDRESS: {address}: {reason}; start that cluster or unset it") from error


def _start(**options: Any) -> None:
    """Start a local Ray, and retry if its startup times out.

    Ray allows its processes fifteen seconds, which cannot be set (ray-project/ray#65983). On a busy
    machine the first start may take longer; the next one reads its files from the page cache. Raises
    InputError after START_TIMEOUT_S, or ends the process then if Ray waits in a C++ function.
    """
    limit = threading.Timer(START_TIMEOUT_S, _end_late_start)
    limit.daemon = True
    limit.start()
    try:
        _retry_start(time.monotonic() + START_TIMEOUT_S, **options)
    finally:
        limit.cancel()


def _retry_start(deadline: float, **options: Any) -> None:
    cpus = max(MIN_CPUS, os.cpu_count() or 1)
    while True:
        start = time.monotonic()
        try:
            with _short_waits():
                ray.init(address="local", num_cpus=cpus, include_dashboard=False, **options)
            return
        except Exception as error:
            if "timed out" not in str(error).lower():
                raise
            now = time.monotonic()
            if now + (now - start) > deadline:
                raise InputError(LATE_START) from error
            log.warning("Ray timed out during startup; starting it again")


@contextlib.contextmanager
def _short_waits() -> Iterator[None]:
    """Let Ray wait for the port of its GCS in short calls.

    Its one call of up to 30 s holds the GIL, so no signal handler and no other thread would run meanwhile.
    """
    wait = ray._private.node.wait_for_persisted_port

    def poll(*args: Any, timeout_ms: int) -> int:
        end = time.monotonic() + timeout_ms / 1000
        while True:
            try:
                return int(wait(*args, timeout_ms=_WAIT_MS))
            except RuntimeError:
                if time.monotonic() > end:
                    raise

    ray._private.node.wait_for_persisted_port = poll
    try:
        yield
    finally:
        ray._private.node.wait_for_persisted_port = wait


def _end_late_start() -> None:
    os.write(2, f"{os.path.basename(sys.argv[0])}: {LATE_START}\n".encode())
    os._exit(2)


def _print_code_size() -> None:
    """In a submitted job, print the size of the code package that Ray unpacked in the current folder."""
    if "working_dir" not in ray.get_runtime_context().runtime_env:
        return
    with contextlib.suppress(FileNotFoundError):  # other jobs with this package may remove files here
        print(f"code of this job: {_size(Path.cwd())}", file=sys.stderr)


def _size(folder: Path) -> str:
    """Number and total size of the files in a folder, without Python's caches."""
    files = [file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    return f"{len(files)} files, {sum(file.stat().st_size for file in files) / _MIB:.1f} MiB"


def _check_reachable(address: str) -> None:
    """Raise ConnectionError if nothing listens at HOST:PORT; other addresses (`auto`) are left to Ray.

    Ray itself would retry for minutes and then end the process without an exception.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    # Ray translates a loopback address to the node's own, where a head node listens.
    hosts = {host, ray.util.get_node_ip_address()} if host in ("127.0.0.1", "localhost") else {host}
    if not any(_accepts(name, int(port)) for name in hosts):
        raise ConnectionError("no Ray cluster answers there")


def _accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=10):
            return True
    except OSError:
        return False
