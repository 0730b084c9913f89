"""Faults of processes and of the storage, each undone after FAULT_S seconds."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import psutil

from tests.cluster.fault_injection import FaultyServer

FAULT_S = 5.0
_STORM_SHARE = 0.8  # of the requests


def inject(kind: str, processes: Sequence[psutil.Process], storage: FaultyServer) -> None:
    """Make a fault, and undo it. Processes may end meanwhile."""
    if kind == "storage_storm":
        _storm(storage)
        return
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            _START[kind](process)
    if kind in _END:
        time.sleep(FAULT_S)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                _END[kind](process)


def find_processes(title: str, token_path: str) -> Iterator[psutil.Process]:
    """The processes with that word in their title of one cluster, which its token identifies."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            is_ray = "ray::" in command and title in command
            if is_ray and process.environ().get("RAY_AUTH_TOKEN_PATH") == token_path:
                yield process


def _storm(storage: FaultyServer) -> None:
    storage.share = _STORM_SHARE
    time.sleep(FAULT_S)
    storage.share = 0.0


def _limit_files(process: psutil.Process, is_full: bool) -> None:
    """Let writes to files fail with EFBIG, which the code treats as it does ENOSPC. Needs no root."""
    _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (0 if is_full else hard, hard))


_START: dict[str, Callable[[psutil.Process], None]] = {
    "kill": psutil.Process.kill,
    "stop": psutil.Process.suspend,
    "disk_full": lambda process: _limit_files(process, is_full=True),
    "clock_jump": lambda process: None,  # made by tests.chaos.clock
}
_END: dict[str, Callable[[psutil.Process], None]] = {
    "stop": psutil.Process.resume,
    "disk_full": lambda process: _limit_files(process, is_full=False),
}
