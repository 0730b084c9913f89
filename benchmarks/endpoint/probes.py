"""An open loop of health checks: each starts at its time, and its latency counts from there."""

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np

PATHS = ("/healthz", "/readyz")
_TIMEOUT_S = 30.0  # then an error


@dataclass
class Outcomes:
    """Latencies of all probes, and their statuses; an error without a status counts by its class."""

    latencies_ms: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def summary(self) -> dict[str, Any]:
        """The number of probes, percentiles in ms, and counts of statuses."""
        p50, p99 = np.percentile(self.latencies_ms or [np.nan], [50, 99])
        latencies = {"p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1)}
        return {"count": len(self.latencies_ms), **latencies, "statuses": dict(self.statuses)}


async def probe(url: str, rate: float, seconds: float) -> dict[str, Any]:
    """Send probes, `rate` a second to the two paths in turn; the summary of their outcomes."""
    outcomes, start = Outcomes(), time.perf_counter()
    async with (
        aiohttp.ClientSession(
            url,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
        ) as session,
        asyncio.TaskGroup() as tasks,
    ):
        paths = itertools.cycle(PATHS)
        for number in range(int(rate * seconds)):
            due = start + number / rate
            await asyncio.sleep(max(0, due - time.perf_counter()))
            tasks.create_task(_send(session, next(paths), due, outcomes))
    return outcomes.summary


async def _send(session: aiohttp.ClientSession, path: str, due: float, outcomes: Outcomes) -> None:
    try:
        async with session.get(path) as answer:
            await answer.read()
            status = str(answer.status)
    except (aiohttp.ClientError, TimeoutError) as error:
        status = type(error).__name__
    outcomes.latencies_ms.append(1000 * (time.perf_counter() - due))
    outcomes.statuses[status] += 1
