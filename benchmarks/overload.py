"""Four times the searches that the endpoint can answer, for two minutes, and what becomes of it.

`python benchmarks/overload.py`: the capacity with 64 clients, then searches at `--times` that rate in an open
loop, then the capacity again. It holds where every answer is 200, 429 or 504, 99 % of the 200s come within
the deadline, no process keeps growing, and ten seconds later the throughput is back. The last line is JSON;
exit code 1: it does not hold.
"""

import argparse
import json
import signal
import sys
import tempfile
import threading
from typing import Any

import psutil

from benchmarks.endpoint.sides import Row, load, serving, world

ALLOWED = {"200", "429", "504"}
DEADLINE_MS = 10_000  # of serve/config.yaml
MIB = 2**20
# Of the middle of the overload, at its end: allocators keep what they once had, a leak goes on.
GROWTH, BACK = 1.1, 0.9
SETTLE_S = 10


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure before, during and after, and judge."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server is left behind
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.world or world(scratch, args.recipe, args.photos)
        extra = ["--config", args.config] if args.config else []
        with serving(args.side, folder, *extra) as (url, process):
            measured = _measured(url, process, args)
            _print(measured)
    return _judged(measured)


def _measured(url: str, process: int, args: argparse.Namespace) -> dict[str, Any]:
    before = load(url, "--clients", 64, "--seconds", 20, "--warm-up", 5)
    rate = round(args.times * before["rps"], 1)
    with _Memory(process, args.seconds) as memory:
        during = load(url, "--rate", rate, "--seconds", args.seconds, "--warm-up", 0, "--seed", 1)
    after = load(url, "--clients", 64, "--seconds", 20, "--warm-up", SETTLE_S, "--seed", 2)
    return {"rate": rate, "before": before, "during": during, "after": after, "mib": memory.mib}


class _Memory:
    """MiB of each replica's own, in the middle of the overload and at its end."""

    def __init__(self, process: int, seconds: float) -> None:
        self.process, self.mib = process, dict[str, list[float]]()
        self.timer = threading.Timer(seconds / 2, self._note)

    def __enter__(self) -> "_Memory":
        self.timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.timer.join()
        self._note()

    def _note(self) -> None:
        for child in psutil.Process(self.process).children(recursive=True):
            name = child.name()
            if name.startswith("ray::") and "IDLE" not in name:
                held = child.memory_full_info().uss / MIB
                self.mib.setdefault(f"{name} {child.pid}", []).append(round(held, 1))


def _print(measured: dict[str, Any]) -> None:
    for name in ("before", "during", "after"):
        row: Row = measured[name]
        told = {key: row[key] for key in ("rps", "p50_ms", "p95_ms", "p99_ms", "statuses")}
        print(f"{name:7} {json.dumps(told)}")
    for name, mib in measured["mib"].items():
        print(f"{name}: {' -> '.join(map(str, mib))} MiB")


def _judged(measured: dict[str, Any]) -> dict[str, Any]:
    before, during, after = (measured[name] for name in ("before", "during", "after"))
    growth = max(mib[-1] / mib[0] for mib in measured["mib"].values() if len(mib) > 1)
    back = after["rps"] / before["rps"]
    return {
        "rate": measured["rate"],
        "statuses": during["statuses"],
        "p99_ms": during["p99_ms"],
        "memory_growth": round(growth, 3),
        "throughput_after": round(back, 3),
        "holds": set(during["statuses"]) <= ALLOWED
        and during["p99_ms"] <= DEADLINE_MS
        and growth <= GROWTH
        and back >= BACK,
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", choices=("ours", "serve_run"), default="ours", help="as of serve.py")
    parser.add_argument("--world", help="a folder with `checkpoint` and `gallery`, in place of random ones")
    parser.add_argument("--recipe", default="chairs_cpu", help="whose towers are made")
    parser.add_argument("--photos", type=int, default=10_000, help="in the gallery that is made")
    parser.add_argument("--times", type=float, default=4, help="the capacity")
    parser.add_argument("--seconds", type=float, default=120, help="of overload")
    parser.add_argument("--config", help="in place of serve/config.yaml")
    return parser


if __name__ == "__main__":
    summary = main(parser().parse_args())
    print(json.dumps(summary))
    sys.exit(0 if summary["holds"] else 1)
