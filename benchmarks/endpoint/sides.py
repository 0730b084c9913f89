"""Servers to measure, each in its own process, and the load on them."""

import argparse
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
# Module and arguments. `ours`: the settings for load of docs/serve.md; `serve_run`: the defaults; each
# `one_process`: the same with the profile for CPUs.
SIDES = {
    "floor": ["floor"],
    "flask": ["one_by_one"],
    "ours": ["ours", "--under-load"],
    "serve_run": ["ours"],
    "one_process": ["ours", "--under-load", "--config", "serve/profiles/cpu.yaml"],
    "serve_run_one_process": ["ours", "--config", "serve/profiles/cpu.yaml"],
}
# Avoids threads of several libraries spinning against each other.
THREADS = {"floor": {"OMP_NUM_THREADS": "1"}, "flask": {"OMP_WAIT_POLICY": "PASSIVE"}}
START_TIMEOUT_S = 300
KEYS_VARIABLE = "STBIR_API_KEYS_FILE"
Row = dict[str, Any]


def add_world_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the checkpoint and the gallery that the endpoint serves, see `open_world`."""
    parser.add_argument("--world", help="folder with `checkpoint` and `gallery`; default: random ones")
    parser.add_argument("--recipe", default="chairs_cpu", help="recipe of the random encoders")
    parser.add_argument("--photos", type=int, default=10_000, help="size of the random gallery")


@contextlib.contextmanager
def open_world(args: argparse.Namespace) -> Iterator[str]:
    """The folder of the checkpoint and the gallery: --world, or random ones while the body runs."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stops the servers, too
    with tempfile.TemporaryDirectory() as scratch:
        yield args.world or make_world(scratch, args.recipe, args.photos)


def server_parser(description: str | None) -> argparse.ArgumentParser:
    """The command line of a side, as `serving` starts it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--gallery", required=True)
    parser.add_argument("--port", type=int, required=True)
    return parser


def make_world(scratch: str, recipe: str, photos: int) -> str:
    """Make a random checkpoint and gallery in a folder; the folder."""
    arguments = ["--out", scratch, "--recipe", recipe, "--photos", str(photos)]
    subprocess.run([sys.executable, "-m", "benchmarks.endpoint.world", *arguments], cwd=ROOT, check=True)
    return scratch


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its descendants."""
    total = 0.0
    for each in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return total


def serve_processes(pid: int) -> Iterator[tuple[str, psutil.Process]]:
    """Name and process of each replica, controller and proxy below a process."""
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            name = process.name()
            if name.startswith("ray::") and "IDLE" not in name:
                yield name, process


@contextlib.contextmanager
def serving(side: str, folder: str, *arguments: str) -> Iterator[tuple[str, int]]:
    """Start a side and wait until it is ready: its URL and process id."""
    port = _free_port()
    module, *side_arguments = SIDES[side]
    options = [
        *side_arguments,
        "--checkpoint",
        f"{folder}/checkpoint",
        "--gallery",
        f"{folder}/gallery",
        *arguments,
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.endpoint.{module}", "--port", str(port), *options],
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
    with contextlib.suppress(subprocess.TimeoutExpired):  # Serve lets replicas finish
        process.wait(timeout=60)
    for left in psutil.process_iter():  # HAProxy has its own session and survives
        with contextlib.suppress(psutil.Error):
            if left.environ().get(KEYS_VARIABLE) == _keys()[KEYS_VARIABLE] and left.pid != os.getpid():
                left.kill()
    process.wait()


def load(url: str, *arguments: Any) -> Row:
    """Run the load generator; its summary."""
    done = subprocess.run(
        load_command(url, *arguments), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def load_command(url: str, *arguments: Any) -> list[str]:
    """Command line of the load generator."""
    command = [sys.executable, "-m", "benchmarks.endpoint.load", "--url", url, *map(str, arguments)]
    return [*command, f"--key={key()}"]  # it may begin with a dash


@functools.cache
def _new_key() -> tuple[str, str]:
    """A new key and its line in the key file. A subprocess: `serve` may be the benchmark here."""
    command = [sys.executable, "-m", "serve.http.api_keys", "benchmark"]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    secret, line = (each.partition(":")[2].strip() for each in output.splitlines())
    return secret, line


def key() -> str:
    """The API key of the searches."""
    return _new_key()[0]


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()  # deleted when this process ends


def _keys() -> dict[str, str]:
    """Environment of an endpoint with that key and without usage statistics."""
    file = Path(_scratch().name) / "keys"
    file.write_text(_new_key()[1] + "\n")
    return {KEYS_VARIABLE: str(file), "RAY_USAGE_STATS_ENABLED": "0"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=10):
            return
        time.sleep(0.3)
    raise RuntimeError(f"{url}: not ready; see its output above")
