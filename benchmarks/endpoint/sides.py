"""The servers to measure, each in a process of its own, and load on them."""

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
# A module and its arguments: `ours` is what docs/operations.md tells for load, `serve_run` what that command
# alone starts.
SIDES = {
    "floor": ["floor"],
    "flask": ["one_by_one"],
    "ours": ["ours", "--under-load"],
    "serve_run": ["ours"],
}
# As a good engineer sets it: libraries whose threads spin against one another compute many times as long.
THREADS = {"floor": {"OMP_NUM_THREADS": "1"}, "flask": {"OMP_WAIT_POLICY": "PASSIVE"}}
START_S = 300
KEYS = "STBIR_API_KEYS_FILE"
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
    module, *own = SIDES[side]
    given = [*own, "--checkpoint", f"{folder}/checkpoint", "--gallery", f"{folder}/gallery", *arguments]
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.endpoint.{module}", "--port", str(port), *given],
        cwd=ROOT,
        env={**os.environ, **THREADS.get(side, {}), **_keys(), "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        _wait(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):  # Serve lets replicas finish what nobody waits for
        process.wait(timeout=60)
    for left in psutil.process_iter():  # HAProxy, with sessions and parents of its own, outlives the rest
        with contextlib.suppress(psutil.Error):
            if left.environ().get(KEYS) == _keys()[KEYS] and left.pid != os.getpid():
                left.kill()
    process.wait()


def load(url: str, *arguments: Any) -> Row:
    """What the load of a process of its own saw."""
    done = subprocess.run(
        load_command(url, *arguments), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def load_command(url: str, *arguments: Any) -> list[str]:
    """What `load` runs, for who has something else to do meanwhile."""
    words = [sys.executable, "-m", "benchmarks.endpoint.load", "--url", url, *map(str, arguments)]
    return [*words, f"--key={key()}"]  # it may begin with a dash


@functools.cache
def _new_key() -> tuple[str, str]:
    """A key, and the line of the file for it. Here `serve` may be the benchmark of that name."""
    command = [sys.executable, "-m", "serve.http.api_keys", "benchmark"]
    told = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    secret, line = (each.partition(":")[2].strip() for each in told.splitlines())
    return secret, line


def key() -> str:
    """What every search here is sent with."""
    return _new_key()[0]


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()  # gone when this process ends


def _keys() -> dict[str, str]:
    """The variables of an endpoint that knows the key and tells nobody of its use."""
    file = Path(_scratch().name) / "keys"
    file.write_text(_new_key()[1] + "\n")
    return {KEYS: str(file), "RAY_USAGE_STATS_ENABLED": "0"}


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
