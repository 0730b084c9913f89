"""Sends health checks beside searches to the endpoint.

`python benchmarks/probes.py` measures `--honest-rate` searches a second in an open loop, first alone, then
beside a flood of `--rate` probes a second. Then it sends more searches than the endpoint answers
(`--full-rate`) beside `--slow-rate` probes a second. The endpoint passes if the flood raises the p99 of
searches by at most half, all searches beside it are answered, all probes get 200, and their p99 is at most
20 ms while searches are full. The last line is JSON; exit code 1 if it fails.
"""

import argparse
import asyncio
import json
import sys
from http import HTTPStatus
from typing import Any

from benchmarks.endpoint.load import OK
from benchmarks.endpoint.probes import probe
from benchmarks.endpoint.sides import Row, add_world_options, load, open_world, serving

MAX_RATIO = 1.5  # of the p99 of searches beside the flood and alone
MAX_PROBE_MS = 20.0
LOAD_START_S = 5.0  # of the load generator: probes are sent while it starts and ends, too
FULL = str(int(HTTPStatus.TOO_MANY_REQUESTS))
COLUMNS = ("p50_ms", "p95_ms", "p99_ms", "statuses")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the searches alone, beside the flood, and the probes while searches are full."""
    with open_world(args) as folder, serving(args.side, folder) as (url, _):
        baseline = load(url, "--rate", args.honest_rate, "--seconds", args.seconds)
        beside, flood = asyncio.run(_together(url, args.seconds, args.honest_rate, args.rate))
        overload, probes = asyncio.run(_together(url, args.seconds, args.full_rate, args.slow_rate))
    return summary(baseline, beside, flood, overload, probes)


async def _together(url: str, seconds: float, search_rate: float, probe_rate: float) -> tuple[Row, Row]:
    """The summaries of searches and of probes that are sent beside each other."""
    searches = asyncio.to_thread(load, url, "--rate", search_rate, "--seconds", seconds, "--seed", 1)
    return await asyncio.gather(searches, probe(url, probe_rate, seconds + LOAD_START_S))


def summary(baseline: Row, beside: Row, flood: Row, overload: Row, probes: Row) -> dict[str, Any]:
    """What was measured, and the reasons why it does not pass."""
    ratio = round(beside["p99_ms"] / baseline["p99_ms"], 2)
    reasons = [f"p99 x {ratio}"] if ratio > MAX_RATIO else []
    answered = {"searches alone": baseline, "searches beside": beside, "flood": flood, "probes": probes}
    reasons += [
        f"{name}: {row['statuses']}" for name, row in answered.items() if row["statuses"].keys() != {OK}
    ]
    reasons += [] if FULL in overload["statuses"] else ["searches are not full; raise --full-rate"]
    reasons += [f"probes: p99 {probes['p99_ms']} ms"] if probes["p99_ms"] > MAX_PROBE_MS else []
    searches = {"alone": baseline, "beside_flood": beside, "full": overload}
    return {
        "searches": {name: {column: row[column] for column in COLUMNS} for name, row in searches.items()},
        "p99_ratio": ratio,
        "probes": {"flood": flood, "full": probes},
        "passed": not reasons,
        "reasons": reasons,
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", choices=("serve_run", "ours"), default="serve_run", help="as in serve.py")
    add_world_options(parser)
    parser.add_argument("--seconds", type=float, default=60, help="duration of each of the three parts")
    parser.add_argument("--rate", type=float, default=1000, help="probes per second of the flood")
    parser.add_argument("--honest-rate", type=float, default=20, help="searches per second beside it")
    parser.add_argument(
        "--full-rate", type=float, default=400, help="searches per second, more than answered"
    )
    parser.add_argument(
        "--slow-rate", type=float, default=20, help="probes per second while searches are full"
    )
    return parser


if __name__ == "__main__":
    result = main(parser().parse_args())
    for name, row in result["searches"].items():
        print(f"searches {name:13} {json.dumps(row)}")
    for name, row in result["probes"].items():
        print(f"probes {name:15} {json.dumps(row)}")
    print(json.dumps(result))
    sys.exit(0 if result["passed"] else 1)
