"""Overloads the endpoint at four times its capacity for two minutes.

`python benchmarks/overload.py` measures the capacity with 64 clients, sends `--times` that rate in an open
loop, then measures the capacity again. The endpoint passes if every status is 200, 429 or 504, 99 % of the
200s meet the deadline, memory does not keep growing, and the throughput recovers within ten seconds. The
last line is JSON; exit code 1 if it fails.
"""

import argparse
import json
import sys
from typing import Any

from benchmarks.endpoint.memory import MAX_GROWTH, Memory
from benchmarks.endpoint.sides import Row, add_world_options, load, open_world, serving

ALLOWED = {"200", "429", "504"}
DEADLINE_MS = 10_000  # of serve/config.yaml
MIN_RECOVERY = 0.9
SETTLE_S = 10


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure before, during and after the overload."""
    options = ["--config", args.config] if args.config else []
    with open_world(args) as folder, serving(args.side, folder, *options) as (url, pid):
        measurements = _measure(url, pid, args)
    _print(measurements)
    return _verdict(measurements)


def _measure(url: str, pid: int, args: argparse.Namespace) -> dict[str, Any]:
    before = load(url, "--clients", 64, "--seconds", 20, "--warm-up", 5)
    rate = round(args.times * before["rps"], 1)
    with Memory(pid) as memory:
        during = load(url, "--rate", rate, "--seconds", args.seconds, "--warm-up", 0, "--seed", 1)
    after = load(url, "--clients", 64, "--seconds", 20, "--warm-up", SETTLE_S, "--seed", 2)
    return {"rate": rate, "before": before, "during": during, "after": after, "growth": memory.growth}


def _print(measurements: dict[str, Any]) -> None:
    for name in ("before", "during", "after"):
        row: Row = measurements[name]
        columns = {key: row[key] for key in ("rps", "p50_ms", "p95_ms", "p99_ms", "statuses")}
        print(f"{name:7} {json.dumps(columns)}")


def _verdict(measurements: dict[str, Any]) -> dict[str, Any]:
    before, during, after = (measurements[name] for name in ("before", "during", "after"))
    growth, recovery = measurements["growth"], after["rps"] / before["rps"]
    return {
        "rate": measurements["rate"],
        "statuses": during["statuses"],
        "p99_ms": during["p99_ms"],
        "memory_growth": round(growth, 3),
        "throughput_after": round(recovery, 3),
        "holds": set(during["statuses"]) <= ALLOWED
        and during["p99_ms"] <= DEADLINE_MS
        and growth <= MAX_GROWTH
        and recovery >= MIN_RECOVERY,
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", choices=("ours", "serve_run"), default="ours", help="as in serve.py")
    add_world_options(parser)
    parser.add_argument("--times", type=float, default=4, help="multiple of the capacity")
    parser.add_argument("--seconds", type=float, default=120, help="duration of the overload")
    parser.add_argument("--config", help="replaces serve/config.yaml")
    return parser


if __name__ == "__main__":
    summary = main(parser().parse_args())
    print(json.dumps(summary))
    sys.exit(0 if summary["holds"] else 1)
