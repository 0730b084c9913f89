"""Sends hostile requests beside searches to the endpoint.

`python benchmarks/hostile.py` measures `--honest-rate` searches a second in an open loop, first alone, then
beside `--rate` hostile requests a second of twelve kinds (benchmarks/endpoint/hostile_requests.py). The
endpoint passes if no status is 5xx or wrong for its request, all searches are answered with hits, their p99
at most doubles, and no process of Serve dies or keeps growing. The last line is JSON; exit code 1 if it
fails.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable
from typing import Any

from benchmarks.endpoint.flood import Outcomes, flood
from benchmarks.endpoint.hostile_requests import endless
from benchmarks.endpoint.load import OK
from benchmarks.endpoint.memory import MAX_GROWTH, Memory
from benchmarks.endpoint.sides import Row, add_world_options, cpu_s, key, load, open_world, serving

MAX_RATIO = 2.0  # of the p99 of searches beside hostile requests and alone
LOAD_START_S = 5.0  # of the load generator; searches are measured while hostile requests arrive
MAX_QUIET_S = 60.0


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the searches alone and beside the hostile requests."""
    requests = endless(args.seed)
    with open_world(args) as folder, serving(args.side, folder) as (url, pid):
        seconds = max(1, args.requests / args.rate - LOAD_START_S)
        quiet = _searches(url, pid, args, min(seconds, MAX_QUIET_S), 0)
        with Memory(pid) as memory:
            sent = flood(url, key(), requests, args.requests, args.rate)
            beside, outcomes = asyncio.run(_together(sent, url, pid, args, seconds))
    return summary(quiet, beside, outcomes, memory)


async def _together(
    sent: Awaitable[Outcomes], url: str, pid: int, args: argparse.Namespace, seconds: float
) -> tuple[Row, Outcomes]:
    beside, outcomes = await asyncio.gather(asyncio.to_thread(_searches, url, pid, args, seconds, 1), sent)
    return beside, outcomes


def _searches(url: str, pid: int, args: argparse.Namespace, seconds: float, seed: int) -> Row:
    """Run the searches; their results with the cores that the endpoint used, which tell a busy machine."""
    before, start = cpu_s(pid), time.monotonic()
    row = load(url, "--rate", args.honest_rate, "--seconds", seconds, "--seed", seed)
    return {**row, "cores": round((cpu_s(pid) - before) / (time.monotonic() - start), 2)}


def summary(quiet: Row, beside: Row, outcomes: Outcomes, memory: Memory) -> dict[str, Any]:
    """What was measured, and the reasons why it does not pass."""
    ratio = round(beside["p99_ms"] / quiet["p99_ms"], 2)
    mib = [round(total) for total in memory.mib]
    columns = ("p50_ms", "p95_ms", "p99_ms", "statuses", "cores")
    reasons = [f"{status} ({count})" for status, count in sorted(outcomes.unexpected.items())]
    reasons += [
        f"searches {name}: {row['statuses']}"
        for name, row in (("alone", quiet), ("beside", beside))
        if row["statuses"].keys() != {OK}
    ]
    reasons += [f"p99 x {ratio}"] if ratio > MAX_RATIO else []
    reasons += [f"memory x {memory.growth:.3f}"] if memory.growth > MAX_GROWTH else []
    reasons += [f"{name} ended" for name in memory.ended]
    return {
        "kinds": {
            kind: {"count": counts.total(), "statuses": dict(counts)}
            for kind, counts in outcomes.statuses.items()
        },
        "quiet": {name: quiet[name] for name in columns},
        "beside": {name: beside[name] for name in columns},
        "p99_ratio": ratio,
        "memory_mib": {"start": mib[0], "end": mib[-1], "peak": max(mib), "growth": round(memory.growth, 3)},
        "passed": not reasons,
        "reasons": reasons,
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", choices=("ours", "serve_run"), default="ours", help="as in serve.py")
    add_world_options(parser)
    parser.add_argument("--requests", type=int, default=20_000, help="number of hostile requests")
    parser.add_argument("--rate", type=float, default=50, help="hostile requests per second")
    parser.add_argument("--honest-rate", type=float, default=20, help="searches per second")
    parser.add_argument("--seed", type=int, default=0, help="of the hostile requests")
    return parser


if __name__ == "__main__":
    result = main(parser().parse_args())
    for kind, row in result["kinds"].items():
        print(f"{kind:16} {row['count']:6} {json.dumps(row['statuses'])}")
    print(json.dumps(result))
    sys.exit(0 if result["passed"] else 1)
