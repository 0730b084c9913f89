"""The endpoint beside a plain server with the same model and gallery, and beside one that answers one by one.

`python benchmarks/serve.py` makes both of random numbers. `floor`: one uvicorn process without Ray, batching.
`flask`: one query at a time. `ours`: behind Ray's HAProxy, as docs/operations.md tells for load; `serve_run`:
as that command starts it. At 1, 8, 32 and 128 clients, and in an open loop at half of each side's best:
searches answered a second, latencies, errors, milliseconds of CPU a search (to which nothing else that runs
on the machine adds); then the mean of each step. The floor is measured before and after ours, so that a
machine that slows down shows. The last line is JSON.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from benchmarks.endpoint.sides import Row, cpu_s, load, serving, world

OURS = ("ours", "serve_run")
SHOWN = ("rps", "p50_ms", "p95_ms", "p99_ms", "errors", "cpu_ms")
Measured = list[tuple[str, dict[str, Row]]]  # a side, and its row for each number of clients


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure each side, print the table, and give what the last line says."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server is left behind
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.world or world(scratch, args.recipe, args.photos)
        measured = [(name, _side(name, folder, args)) for name in args.sides.split(",")]
    _trace(measured)
    return _summary(measured)


def _side(name: str, folder: str, args: argparse.Namespace) -> dict[str, Row]:
    extra = ["--config", args.config] if name in OURS and args.config else []
    with serving(name, folder, *extra) as (url, process):
        rows = {
            f"{clients} clients": _measured(url, process, args, "--clients", clients, "--seed", clients)
            for clients in sorted(args.clients)
        }
        half = round(max(row["rps"] for row in rows.values()) / 2, 1)
        rows["open loop"] = _measured(url, process, args, "--rate", max(1, half))
    for how, row in rows.items():
        told = "  ".join(f"{key} {row[key]:>7}" for key in SHOWN)
        print(f"{name:6} {how:12} {told}", flush=True)
    return rows


def _measured(url: str, process: int, args: argparse.Namespace, *how: Any) -> Row:
    """What the clients saw, and how long the side's processes computed for each search."""
    before = cpu_s(process)
    row = load(url, "--seconds", args.seconds, "--kinds", args.kinds, *how)
    return {**row, "cpu_ms": round((cpu_s(process) - before) * 1000 / max(1, row["answered"]), 1)}


def _trace(measured: Measured) -> None:
    for name, rows in measured:
        for how, row in rows.items():
            print(f"{name:6} {how:12} mean ms a step: {json.dumps(row['steps_ms'])}")


def _summary(measured: Measured) -> dict[str, Any]:
    """Ratios of the best throughput at any number of clients, and of the median at the fewest clients."""
    rps = _means((name, max(row["rps"] for row in rows.values())) for name, rows in measured)
    p50 = _means((name, next(iter(rows.values()))["p50_ms"]) for name, rows in measured)
    cpu = _means((name, min(row["cpu_ms"] for row in rows.values())) for name, rows in measured)
    summary: dict[str, Any] = {"rps": rps, "p50_ms": p50, "cpu_ms": cpu}
    for other in ("floor", "flask"):
        for prefix, side in (("", "ours"), ("serve_run_", "serve_run")):
            if {side, other} <= rps.keys():
                summary[f"{prefix}throughput_vs_{other}"] = round(rps[side] / rps[other], 3)
                summary[f"{prefix}p50_vs_{other}"] = round(p50[side] / p50[other], 3)
                summary[f"{prefix}cpu_vs_{other}"] = round(cpu[side] / cpu[other], 3)
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
    parser.add_argument("--world", help="a folder with `checkpoint` and `gallery`, in place of random ones")
    parser.add_argument("--recipe", default="chairs_cpu", help="whose towers are made")
    parser.add_argument("--photos", type=int, default=10_000, help="in the gallery that is made")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128], help="at once")
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    parser.add_argument("--kinds", default="mixed", help="what the searches have: mixed, sketch or text")
    parser.add_argument("--sides", default="floor,flask,serve_run,ours,floor", help="in this order")
    parser.add_argument("--config", help="of ours, in place of serve/config.yaml")
    return parser


if __name__ == "__main__":
    print(json.dumps(main(parser().parse_args())))
