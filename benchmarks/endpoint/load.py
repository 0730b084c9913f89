"""Load generator in its own process: `python -m benchmarks.endpoint.load --url URL --clients N`.

Without --rate, N clients each send their next search after the previous response (closed loop). With it,
searches arrive at random times at that mean rate, independent of responses (open loop), and latency counts
from the scheduled time. The last line is JSON.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import aiohttp
import numpy as np

from benchmarks.endpoint.queries import CONTENT_TYPE, KINDS, bodies

OK = str(int(HTTPStatus.OK))
CLIENT_TIMEOUT_S = 60.0  # above the deadline of the endpoint; then an error


@dataclass
class Results:
    """Responses to the searches scheduled after the warm-up."""

    since: float
    answered: int = 0  # with hits, including the warm-up
    statuses: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)  # of responses with hits
    steps_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    seconds: Counter[int] = field(default_factory=Counter)  # responses with hits per second

    def record(self, due: float, status: str, timing_ms: dict[str, float]) -> None:
        """Record one response, received now."""
        now = time.perf_counter()
        self.answered += status == OK
        if due < self.since:
            return
        self.statuses[status] += 1
        if status == OK:
            self.latencies_s.append(now - due)
            self.seconds[int(now - self.since)] += 1
            for step, took in (timing_ms | hops_ms((now - due) * 1000, timing_ms)).items():
                self.steps_ms[step].append(took)


def hops_ms(client_ms: float, timing_ms: dict[str, float]) -> dict[str, float]:
    """What the steps of a search leave of its time: calls and queues behind the ingress, and HTTP before it.

    Both encoders work at the same time.
    """
    step = defaultdict(float, timing_ms)
    encoded_ms = step["encode"] or max(step["decode"] + step["encode_sketch"], step["encode_text"])
    total_ms = timing_ms.get("total", client_ms)
    calls_ms = total_ms - encoded_ms - step["fuse"] - step["search"]
    return {"calls": calls_ms, "http": client_ms - total_ms}


class Sender:
    """Posts the searches, one connection per search in flight."""

    def __init__(self, session: aiohttp.ClientSession, queries: Iterator[bytes], results: Results) -> None:
        self.session, self.queries, self.results = session, queries, results

    async def send(self, due: float) -> None:
        """Send the next search and record its response or error."""
        try:
            async with self.session.post("/v1/search", data=next(self.queries)) as answer:
                body = await answer.read()
                status = str(answer.status)
                timing_ms = json.loads(body).get("timing_ms", {}) if status == OK else {}
                self.results.record(due, status, timing_ms)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.results.record(due, type(error).__name__, {})

    async def closed(self, clients: int, until: float) -> None:
        """Closed loop: each client sends after its response."""

        async def client() -> None:
            while (now := time.perf_counter()) < until:
                await self.send(now)

        await asyncio.gather(*(client() for _ in range(clients)))

    async def open(self, rate: float, until: float) -> None:
        """Open loop: arrivals of a Poisson process."""
        random, in_flight = np.random.default_rng(0), set[asyncio.Task[None]]()
        due = time.perf_counter()
        while due < until:
            await asyncio.sleep(max(0, due - time.perf_counter()))
            task = asyncio.create_task(self.send(due))
            in_flight.add(task)
            task.add_done_callback(in_flight.discard)
            due += random.exponential(1 / rate)
        await asyncio.gather(*in_flight)


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Send for `warm_up` and then `seconds`; the summary of the latter."""
    start = time.perf_counter()
    results = Results(since=start + args.warm_up)
    until = results.since + args.seconds
    async with aiohttp.ClientSession(
        args.url,
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=CLIENT_TIMEOUT_S),
        headers={"Content-Type": CONTENT_TYPE, "Authorization": f"Bearer {args.key}"},
    ) as session:
        sender = Sender(session, bodies(args.kinds, args.seed), results)
        await (sender.open(args.rate, until) if args.rate else sender.closed(args.clients, until))
    return summary(results, args.seconds)


def summary(results: Results, seconds: float) -> dict[str, Any]:
    """Responses per second, latencies in ms, counts of other statuses, and means by step."""
    ms = np.array(results.latencies_s or [np.nan]) * 1000
    p50, p95, p99 = (round(float(value), 1) for value in np.percentile(ms, [50, 95, 99]))
    return {
        "answered": results.answered,
        "rps": round(sum(results.seconds[second] for second in range(int(seconds))) / int(seconds), 1),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "errors": sum(results.statuses.values()) - results.statuses[OK],
        "statuses": dict(results.statuses),
        "steps_ms": {step: round(statistics.fmean(took), 2) for step, took in results.steps_ms.items()},
        "by_second": [results.seconds[second] for second in range(int(seconds))],
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--url", required=True, help="base URL of the endpoint")
    parser.add_argument("--clients", type=int, default=1, help="concurrent clients")
    parser.add_argument("--rate", type=float, default=0, help="searches per second (open loop)")
    parser.add_argument("--seconds", type=float, default=8, help="measured time")
    parser.add_argument("--warm-up", type=float, default=2, help="seconds before it")
    parser.add_argument("--kinds", choices=KINDS, default="mixed", help="kinds of query")
    parser.add_argument("--key", default="", help="API key")
    parser.add_argument("--seed", type=int, default=0, help="of sketches and texts")
    return parser


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(parser().parse_args()))))
