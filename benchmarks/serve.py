"""The endpoint beside a plain server with the same model and gallery, and beside one that answers one by one.

`python benchmarks/serve.py` makes both of random numbers. `floor`: one uvicorn process without Ray, batching.
`flask`: one query at a time. At 1, 8, 32 and 128 clients: searches answered a second, latencies, errors; then
a trace of our steps. The floor is measured before and after ours, so that a machine that slows down shows.
The last line is JSON.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.endpoint.world import make_checkpoint, make_gallery
from ray_jobs.command import QUIET, run

ROOT = Path(__file__).resolve().parents[1]
SIDES = {"floor": "floor", "flask": "one_by_one", "ours": "ours"}
START_S = 180
Row = dict[str, Any]
Measured = list[tuple[str, dict[int, Row]]]  # a side, and its row for each number of clients


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure each side, print the table, and give what the last line says."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server is left behind
    with tempfile.TemporaryDirectory() as scratch:
        model = args.checkpoint or make_checkpoint(f"{scratch}/checkpoint", args.recipe)
        gallery = args.gallery or make_gallery(f"{scratch}/gallery", model, args.photos)
        measured = [(name, _side(name, model, gallery, args)) for name in args.sides.split(",")]
    _trace(measured)
    return _summary(measured)


def _side(name: str, model: str, gallery: str, args: argparse.Namespace) -> dict[int, Row]:
    extra = ["--config", args.config] if name == "ours" and args.config else []
    with serving(name, "--checkpoint", model, "--gallery", gallery, *extra) as url:
        rows = {clients: load(url, clients, args) for clients in args.clients}
    for clients, row in rows.items():
        told = "  ".join(f"{key} {row[key]:>8}" for key in ("rps", "p50_ms", "p95_ms", "p99_ms", "errors"))
        print(f"{name:6} {clients:4} clients  {told}", flush=True)
    return rows


@contextlib.contextmanager
def serving(side: str, *arguments: str) -> Iterator[str]:
    """One side, ready, in a process group of its own."""
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.endpoint.{SIDES[side]}", "--port", str(port), *arguments],
        cwd=ROOT,
        env={**QUIET, **os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        _wait(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def load(url: str, clients: int, args: argparse.Namespace) -> Row:
    """What so many clients saw."""
    command = [sys.executable, "-m", "benchmarks.endpoint.load", "--url", url, "--clients", str(clients)]
    command += ["--seconds", str(args.seconds), "--kinds", args.kinds, "--seed", str(clients)]
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


def _trace(measured: Measured) -> None:
    for name, rows in measured:
        for clients, row in rows.items():
            print(f"{name:6} {clients:4} clients  mean ms a step: {json.dumps(row['steps_ms'])}")


def _summary(measured: Measured) -> dict[str, Any]:
    """Ratios of the best throughput at any number of clients, and of the median at the fewest clients."""
    rps = _means((name, max(row["rps"] for row in rows.values())) for name, rows in measured)
    p50 = _means((name, rows[min(rows)]["p50_ms"]) for name, rows in measured)
    summary: dict[str, Any] = {"rps": rps, "p50_ms": p50}
    for other in ("floor", "flask"):
        if {"ours", other} <= rps.keys():
            summary[f"throughput_vs_{other}"] = round(rps["ours"] / rps[other], 3)
            summary[f"p50_vs_{other}"] = round(p50["ours"] / p50[other], 3)
    return summary


def _means(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Of each side over its turns."""
    by_side: dict[str, list[float]] = defaultdict(list)
    for name, value in pairs:
        by_side[name].append(value)
    return {name: round(statistics.fmean(values), 1) for name, values in by_side.items()}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoint", help="of a model, in place of random towers")
    parser.add_argument("--gallery", help="of that checkpoint, in place of random photos")
    parser.add_argument("--recipe", default="stbir_c_small", help="whose towers are made")
    parser.add_argument("--photos", type=int, default=10_000, help="in the gallery that is made")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128], help="at once")
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    parser.add_argument("--kinds", default="mixed", help="what the searches have: mixed, sketch or text")
    parser.add_argument("--sides", default="floor,flask,ours,floor", help="in this order")
    parser.add_argument("--config", help="of ours, in place of serve/config.yaml")
    return parser


if __name__ == "__main__":
    run(main, parser())
