"""Compares the endpoint with a plain server and with Flask, on the same model and gallery.

`python benchmarks/serve.py` makes random encoders and vectors. `floor`: one uvicorn process with batching, no
Ray. `flask`: one query at a time. `ours`: the endpoint behind Ray's HAProxy (docs/serve.md, Overload);
`serve_run`: as that command starts it; `one_process` and `serve_run_one_process`: the same with the profile
for CPUs. Measured at 1, 8, 32 and 128 clients, and in an open loop at half of the best rate: searches per
second, latencies, errors, CPU ms per search (of its own processes), and the mean of each step and hop. The
floor is measured before and after, to detect a machine that slows down. The last line is JSON.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from benchmarks.endpoint.sides import Row, add_world_options, cpu_s, load, open_world, serving

BASELINES = ("floor", "flask")
COLUMNS = ("rps", "p50_ms", "p95_ms", "p99_ms", "errors", "cpu_ms")
Measured = list[tuple[str, dict[str, Row]]]  # (side, row by number of clients)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure each side, print the table, return the summary."""
    with open_world(args) as folder:
        measurements = [(name, _side(name, folder, args)) for name in args.sides.split(",")]
    _trace(measurements)
    return _summary(measurements)


def _side(name: str, folder: str, args: argparse.Namespace) -> dict[str, Row]:
    options = ["--config", args.config] if name not in BASELINES and args.config else []
    with serving(name, folder, *options) as (url, pid):
        rows = {
            f"{clients} clients": _run_load(url, pid, args, "--clients", clients, "--seed", clients)
            for clients in sorted(args.clients)
        }
        half = round(max(row["rps"] for row in rows.values()) / 2, 1)
        rows["open loop"] = _run_load(url, pid, args, "--rate", max(1, half))
    for how, row in rows.items():
        columns = "  ".join(f"{key} {row[key]:>7}" for key in COLUMNS)
        print(f"{name:6} {how:12} {columns}", flush=True)
    return rows


def _run_load(url: str, pid: int, args: argparse.Namespace, *how: Any) -> Row:
    """Run the load; its results with the CPU time per search of the side's processes."""
    before = cpu_s(pid)
    row = load(url, "--seconds", args.seconds, "--kinds", args.kinds, *how)
    return {**row, "cpu_ms": round((cpu_s(pid) - before) * 1000 / max(1, row["answered"]), 1)}


def _trace(measurements: Measured) -> None:
    for name, rows in measurements:
        for how, row in rows.items():
            print(f"{name:6} {how:12} mean ms a step: {json.dumps(row['steps_ms'])}")


def _summary(measurements: Measured) -> dict[str, Any]:
    """Ratios of the best throughput, and of the median latency at the fewest clients."""
    rps = _means((name, max(row["rps"] for row in rows.values())) for name, rows in measurements)
    p50 = _means((name, next(iter(rows.values()))["p50_ms"]) for name, rows in measurements)
    cpu = _means((name, min(row["cpu_ms"] for row in rows.values())) for name, rows in measurements)
    summary: dict[str, Any] = {"rps": rps, "p50_ms": p50, "cpu_ms": cpu, "load": _load(measurements)}
    for other in rps.keys() & BASELINES:
        for side in rps.keys() - BASELINES:
            prefix = "" if side == "ours" else f"{side}_"
            summary[f"{prefix}throughput_vs_{other}"] = round(rps[side] / rps[other], 3)
            summary[f"{prefix}p50_vs_{other}"] = round(p50[side] / p50[other], 3)
            summary[f"{prefix}cpu_vs_{other}"] = round(cpu[side] / cpu[other], 3)
    return summary


def _load(measurements: Measured) -> dict[str, dict[str, Row]]:
    """Rate and latencies of each side (its last run) by load."""
    columns = ("rps", "p50_ms", "p99_ms")
    return {
        name: {how: {key: row[key] for key in columns} for how, row in rows.items()}
        for name, rows in measurements
    }


def _means(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The mean of each side over its runs."""
    by_side: dict[str, list[float]] = defaultdict(list)
    for name, value in pairs:
        by_side[name].append(value)
    return {name: round(statistics.fmean(values), 1) for name, values in by_side.items()}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_world_options(parser)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128], help="concurrent clients")
    parser.add_argument("--seconds", type=float, default=8, help="per measurement")
    parser.add_argument("--kinds", default="mixed", help="queries: mixed, sketch or text")
    parser.add_argument("--sides", default="floor,flask,serve_run,ours,floor", help="sides in this order")
    parser.add_argument("--config", help="of the endpoint; replaces serve/config.yaml")
    return parser


if __name__ == "__main__":
    print(json.dumps(main(parser().parse_args())))
