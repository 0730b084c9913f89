"""`python -m tests.chaos.run --count N --seed S --log FILE` injects N random faults and checks invariants.

Each line of the log is a step as JSON, those that are skipped too. The last line of the log and of standard
output is a summary. Exit code 1: an invariant was violated.
"""

import argparse
import json
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.plan import SKIPPED, Step, draw_steps

Scenarios = Mapping[str, Callable[[Step], Any]]
Line = dict[str, Any]


def run_steps(steps: list[Step], scenarios: Scenarios, write: Callable[[Line], None]) -> Line:
    """Run the steps and write a line for each, and for what is skipped. Returns the summary."""
    results = Counter({"passed": 0, "failed": 0, "skipped": len(SKIPPED)})
    for step in steps:
        line = _run_step(step, scenarios[step.fault.scenario])
        results[line["result"]] += 1
        write(line)
    for fault, reason in SKIPPED.items():
        write({**asdict(fault), "result": "skipped", "reason": reason})
    run = results["passed"] + results["failed"]
    summary = {"listed": len(steps) + len(SKIPPED), "run": run, **results}
    write(summary)
    return summary


def _run_step(step: Step, scenario: Callable[[Step], Any]) -> Line:
    start = time.monotonic()
    line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "number": step.number, **asdict(step.fault)}
    try:
        shown = asdict(scenario(step))
    except (Exception, pytest.fail.Exception) as error:  # of any part: the step failed, the next one runs
        shown = {"violations": [f"{type(error).__name__}: {error}"[:1000], traceback.format_exc()[-1000:]]}
    result = "failed" if shown["violations"] else "passed"
    if result == "passed" and not shown["is_injected"]:
        result, shown["reason"] = "skipped", "the job ended before the fault"
    return {**line, "moment": step.moment, "result": result, **shown, "s": round(time.monotonic() - start, 1)}


def main(args: argparse.Namespace) -> int:
    """Start the cluster, run the steps; the exit code."""
    # Not at the top: a test of the plan and the log needs no cluster.
    import tests.conftest  # noqa: F401 - it sets the environment of Ray, before any import of Ray
    from tests.chaos.endpoint import Endpoint
    from tests.chaos.jobs import Jobs
    from tests.chaos.world import running_world

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the cluster stops
    args.log.parent.mkdir(parents=True, exist_ok=True)
    with args.log.open("w", buffering=1) as log, running_world() as world:
        jobs, endpoint = Jobs(world), Endpoint(world)
        scenarios = {
            "train": jobs.train,
            "embed_gallery": jobs.embed_gallery,
            "caption": jobs.caption,
            "serve": endpoint.serve,
        }

        def write(line: Line) -> None:
            log.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)

        return 1 if run_steps(draw_steps(args.seed, args.count), scenarios, write)["failed"] else 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("tests.chaos.run", description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="number of faults (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults and their moments (%(default)s)")
    parser.add_argument("--log", type=Path, default=Path("out/chaos.jsonl"), help="log (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
