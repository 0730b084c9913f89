"""Load on an endpoint, from a process of its own: `python -m benchmarks.endpoint.load --url URL --clients N`.

Without --rate, N clients each send their next search when the last is answered. With it, searches arrive at
random times, so many a second on average, whatever becomes of those before (an open loop), and each counts
from when it was due: answers that come late make nobody send less. The last line is JSON.
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
PATIENCE_S = 60.0  # beyond the endpoint's own deadline: what has not come by then is an error


@dataclass
class Seen:
    """What came back, of those that were due after the warm-up."""

    since: float
    answered: int = 0  # with hits, those of the warm-up too
    statuses: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)  # of answers with hits
    steps_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    seconds: Counter[int] = field(default_factory=Counter)  # answers with hits in each second

    def note(self, due: float, status: str, timing_ms: dict[str, float]) -> None:
        """One answer, now."""
        now = time.perf_counter()
        self.answered += status == OK
        if due < self.since:
            return
        self.statuses[status] += 1
        if status == OK:
            self.latencies_s.append(now - due)
            self.seconds[int(now - self.since)] += 1
            for step, took in timing_ms.items():
                self.steps_ms[step].append(took)


class Sender:
    """Posts the searches, one connection for each that is under way."""

    def __init__(self, session: aiohttp.ClientSession, queries: Iterator[bytes], seen: Seen) -> None:
        self.session, self.queries, self.seen = session, queries, seen

    async def send(self, due: float) -> None:
        """The next search; its answer is noted, whatever it is."""
        try:
            async with self.session.post("/v1/search", data=next(self.queries)) as answer:
                body = await answer.read()
                status = str(answer.status)
                told = json.loads(body) if status == OK else {}
                self.seen.note(due, status, told.get("timing_ms", {}))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.seen.note(due, type(error).__name__, {})

    async def closed(self, clients: int, until: float) -> None:
        """Each client sends when it has its answer."""

        async def client() -> None:
            while (now := time.perf_counter()) < until:
                await self.send(now)

        await asyncio.gather(*(client() for _ in range(clients)))

    async def open(self, rate: float, until: float) -> None:
        """Arrivals of a Poisson process."""
        random, under_way = np.random.default_rng(0), set[asyncio.Task[None]]()
        due = time.perf_counter()
        while due < until:
            await asyncio.sleep(max(0, due - time.perf_counter()))
            task = asyncio.create_task(self.send(due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            due += random.exponential(1 / rate)
        await asyncio.gather(*under_way)


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Send for `warm_up` and then `seconds`, and tell what was seen of the latter."""
    start = time.perf_counter()
    seen = Seen(since=start + args.warm_up)
    until = seen.since + args.seconds
    async with aiohttp.ClientSession(
        args.url,
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=PATIENCE_S),
        headers={"Content-Type": CONTENT_TYPE, "Authorization": f"Bearer {args.key}"},
    ) as session:
        sender = Sender(session, bodies(args.kinds, args.seed), seen)
        await (sender.open(args.rate, until) if args.rate else sender.closed(args.clients, until))
    return summary(seen, args.seconds)


def summary(seen: Seen, seconds: float) -> dict[str, Any]:
    """Searches answered a second, latencies in ms, everything that was no 200, and means by step."""
    ms = np.array(seen.latencies_s or [np.nan]) * 1000
    p50, p95, p99 = (round(float(value), 1) for value in np.percentile(ms, [50, 95, 99]))
    return {
        "answered": seen.answered,
        "rps": round(sum(seen.seconds[second] for second in range(int(seconds))) / int(seconds), 1),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "errors": sum(seen.statuses.values()) - seen.statuses[OK],
        "statuses": dict(seen.statuses),
        "steps_ms": {step: round(statistics.fmean(took), 2) for step, took in seen.steps_ms.items()},
        "by_second": [seen.seconds[second] for second in range(int(seconds))],
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--url", required=True, help="where the endpoint listens")
    parser.add_argument("--clients", type=int, default=1, help="how many send at once")
    parser.add_argument("--rate", type=float, default=0, help="searches a second, whatever comes back")
    parser.add_argument("--seconds", type=float, default=8, help="how long it is measured")
    parser.add_argument("--warm-up", type=float, default=2, help="seconds before that")
    parser.add_argument("--kinds", choices=KINDS, default="mixed", help="what the searches have")
    parser.add_argument("--key", default="", help="of the endpoint")
    parser.add_argument("--seed", type=int, default=0, help="of sketches and words")
    return parser


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(parser().parse_args()))))
