"""The servers to measure, each in a process of its own, and load on them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
SIDES = {"floor": "floor", "flask": "one_by_one", "ours": "ours"}
# As a good engineer sets it: libraries whose threads spin against one another compute many times as long.
THREADS = {"floor": {"OMP_NUM_THREADS": "1"}, "flask": {"OMP_WAIT_POLICY": "PASSIVE"}, "ours": {}}
START_S = 300
Row = dict[str, Any]


def world(scratch: str, recipe: str, photos: int) -> str:
    """A folder with a checkpoint and its gallery, made of random numbers."""
    given = ["--out", scratch, "--recipe", recipe, "--photos", str(photos)]
    subprocess.run([sys.executable, "-m", "benchmarks.endpoint.world", *given], cwd=ROOT, check=True)
    return scratch


def cpu_s(process: int) -> float:
    """The time that a process and all below it have computed: what else runs on the machine adds nothing."""
    total = 0.0
    for each in (psutil.Process(process), *psutil.Process(process).children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return total


@contextlib.contextmanager
def serving(side: str, folder: str, *arguments: str) -> Iterator[tuple[str, int]]:
    """One side, ready: where it listens, and its process."""
    port = _free_port()
    given = ["--checkpoint", f"{folder}/checkpoint", "--gallery", f"{folder}/gallery", *arguments]
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.endpoint.{SIDES[side]}", "--port", str(port), *given],
        cwd=ROOT,
        env={**os.environ, **THREADS[side], "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        _wait(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def load(url: str, *arguments: Any) -> Row:
    """What the load of a process of its own saw."""
    command = [sys.executable, "-m", "benchmarks.endpoint.load", "--url", url, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=10):
            return
        time.sleep(0.3)
    raise RuntimeError(f"{url}: not ready; its output stands above")
