"""The Ray connection of a command: the cluster that RAY_ADDRESS names, or one of its own."""

import contextlib
import logging
import os
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

import ray
import ray.data

from ray_jobs.cluster import requirements
from ray_jobs.cluster.checks import demand
from stbir.errors import InputError

log = logging.getLogger(__name__)
# Ray Data needs CPUs beside those that workers and actors hold, or it waits for ever. A small machine
# therefore says it has this many: they are slots for the scheduler, not cores.
LEAST_CPUS = 4
STARTS = 3  # of a Ray that is late
_LATE = "timed out during startup"
_MIB = 2**20

# What Ray would otherwise say or send by itself; a user's own setting wins.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names (as in a submitted job), else start one for this command.

    Then the part of the preflight that every job needs: InputError where something is missing.
    """
    if not ray.is_initialized():
        join()
        demand([*requirements.cluster()])


def join() -> None:
    """As `connect`, looking at nothing."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # Ray forks only to execute its own programs, which leaves Lance's threads unharmed.
    warnings.filterwarnings("ignore", message="lance is not fork-safe")
    options = {"log_to_driver": False, "logging_level": "error"}
    address = os.environ.get("RAY_ADDRESS")
    if address is None:
        _start(**options)
        return
    try:
        _refuse_silence(address)
        ray.init(address=address, **options)
        _say_code()
    except ConnectionError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"RAY_ADDRESS: {address}: {reason}; start that cluster or unset it") from error


def _start(**options: Any) -> None:
    """A Ray of this command's own, tried again where it was not there in time.

    Ray gives its helpers fifteen seconds, whatever is set (ray-project/ray#65983): on a busy machine they
    may take longer, and the next time they come out of the cache.
    """
    cpus = max(LEAST_CPUS, os.cpu_count() or 1)
    for left in reversed(range(STARTS)):
        try:
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **options)
            return
        except Exception as error:
            if _LATE not in str(error) or not left:
                raise
            log.warning("Ray did not start in time, as on a busy machine; it is started again")


def _say_code() -> None:
    """In a submitted job, whose package Ray has unpacked where the command runs: how much came with it."""
    if "working_dir" not in ray.get_runtime_context().runtime_env:
        return
    with contextlib.suppress(FileNotFoundError):  # jobs of the same code may write here, and remove
        print(f"code of this job: {_size(Path.cwd())}", file=sys.stderr)


def _size(folder: Path) -> str:
    """The files of a folder and their bytes, without what Python itself keeps beside them."""
    files = [file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    return f"{len(files)} files, {sum(file.stat().st_size for file in files) / _MIB:.1f} MiB"


def _refuse_silence(address: str) -> None:
    """Raise ConnectionError where nobody listens at HOST:PORT. Ray itself would retry for minutes and
    then end the process without an exception. What has no port (`auto`, `local`) is left to Ray."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    # Ray reads a loopback address as that of the node, where a head listens.
    hosts = {host, ray.util.get_node_ip_address()} if host in ("127.0.0.1", "localhost") else {host}
    if not any(_accepts(name, int(port)) for name in hosts):
        raise ConnectionError("no Ray cluster answers there")


def _accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=10):
            return True
    except OSError:
        return False
