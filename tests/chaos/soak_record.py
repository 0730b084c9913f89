"""What happened in a soak: searches, kills, deploys and memory; its log and its plot."""

import itertools
import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.endpoint.memory import MAX_GROWTH
from tests.chaos.endpoint import LOST_CONNECTION


@dataclass(frozen=True)
class Search:
    """A response. `due`, `end`: seconds since the start; `is_wrong`: not of one release."""

    due: float
    end: float
    status: int
    is_wrong: bool

    def is_in_flight(self, moment: float) -> bool:
        """Whether it was waiting for its response at that moment."""
        return self.due <= moment <= self.end


@dataclass
class Record:
    """What happened, by seconds since the start."""

    start: float = field(default_factory=time.monotonic)
    searches: list[Search] = field(default_factory=list)
    kills: list[tuple[float, str]] = field(default_factory=list)
    deploys: list[tuple[float, float, int]] = field(default_factory=list)  # start, end, version
    mib: list[tuple[float, float]] = field(default_factory=list)

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    @property
    def growth(self) -> float:
        """The median memory of the last quarter over that of the second: a killed replica lowers the mean."""
        quarters = np.array_split([mib for _, mib in self.mib], 4)
        return float(np.median(quarters[3]) / np.median(quarters[1]))

    def unexplained(self) -> list[Search]:
        """The errors of searches that were not in flight when a replica was killed."""
        errors = [each for each in self.searches if each.status >= 500 or each.status == LOST_CONNECTION]
        return [each for each in errors if not any(each.is_in_flight(moment) for moment, _ in self.kills)]

    def summary(self, rate: float) -> dict[str, Any]:
        """Counts, latencies of answers, and the reasons why the run does not pass."""
        ms = [(each.end - each.due) * 1000 for each in self.searches if each.status == 200]
        statuses = Counter(each.status for each in self.searches)
        wrong, unexplained = sum(each.is_wrong for each in self.searches), len(self.unexplained())
        reasons = {
            "no search was answered": not ms,
            f"{wrong} wrong answers": wrong > 0,
            f"{unexplained} errors of searches that no kill explains": unexplained > 0,
            f"memory x {self.growth:.3f}": self.growth > MAX_GROWTH,
            "no replica was killed": not self.kills,
            "no release was deployed": not self.deploys,
        }
        return {
            "seconds": round(self.now),
            "rate": rate,
            "statuses": dict(statuses),
            "wrong": wrong,
            "unexplained_errors": unexplained,
            "kills": len(self.kills),
            "deploys": len(self.deploys),
            "p50_ms": round(float(np.median(ms or [np.nan])), 1),
            "p99_ms": round(float(np.percentile(ms or [np.nan], 99)), 1),
            "memory_growth": round(self.growth, 3),
            "reasons": [reason for reason, holds in reasons.items() if holds],
        }


def write_log(record: Record, file: Path) -> None:
    """A line for each kill, deploy and sample of memory, and each search that failed."""
    events = [
        *({"at": at, "killed": kind} for at, kind in record.kills),
        *({"at": at, "deployed": version, "until": end} for at, end, version in record.deploys),
        *({"at": at, "mib": round(mib)} for at, mib in record.mib),
        *(
            {"at": each.due, **asdict(each)}
            for each in record.searches
            if each.status != 200 or each.is_wrong
        ),
    ]
    file.write_text(
        "".join(json.dumps(event) + "\n" for event in sorted(events, key=lambda each: each["at"]))
    )


def plot(record: Record, file: Path) -> None:
    """Latency percentiles and errors of each ten seconds, and memory; kills grey, deploys green."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), layout="constrained")
    latency, errors, memory = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 1))
    bins = [list(each) for _, each in itertools.groupby(_by_end(record), lambda each: int(each.end // 10))]
    minutes = [each[0].end / 60 for each in bins]
    for percent in (50, 99):
        values = [np.percentile([(s.end - s.due) * 1000 for s in each], percent) for each in bins]
        latency.plot(minutes, values, label=f"p{percent}")
    latency.set(ylabel="ms", yscale="log")
    latency.legend()
    errors.bar(minutes, [sum(s.status != 200 for s in each) for each in bins], width=0.12, color="firebrick")
    errors.set_ylabel("not 200, in 10 s")
    memory.plot([at / 60 for at, _ in record.mib], [mib for _, mib in record.mib])
    memory.set(ylabel="MiB of all replicas", xlabel="minutes", ylim=(0, None))
    for axes in (latency, errors, memory):
        for at, _ in record.kills:
            axes.axvline(at / 60, color="grey", linewidth=0.6)
        for start, end, _ in record.deploys:
            axes.axvspan(start / 60, end / 60, color="green", alpha=0.2)
    figure.savefig(file, dpi=100)


def _by_end(record: Record) -> list[Search]:
    return sorted(record.searches, key=lambda each: each.end)
