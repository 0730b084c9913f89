"""Discrete-event model of the endpoint: admission, coalescing, encoder and fusion replicas, autoscaling.

As in `serve/`, an ingress has at most `max_concurrent_groups` groups in progress. An ingress is one thread; a
replica computes a group at a time. Arrivals of several ingresses are independent (Poisson), so a few stand
for a large fleet. Left out: text encoding (cached, or below a millisecond) and the network.
"""

import math
from collections import Counter, deque
from dataclasses import asdict, dataclass, field

import numpy as np
import simpy
from simpy.events import ProcessGenerator

from benchmarks.simulation.machine import Machine

_METRICS_PERIOD_S = 1.0
_MIN_AHEAD, _WEIGHT = 8, 0.1  # serve/http/wait_estimate.py


@dataclass(frozen=True)
class Work:
    """CPU seconds of a search by component; `call` and the fixed parts are of a group."""

    ingress: float
    call: float
    background: float  # of a call, in other processes and after the answer
    encode_fixed: float
    encode_item: float
    search_fixed: float
    search_item: float
    reject: float = 0.0003
    client: float = 0.0  # of the load generator and the proxy, where they share the cores
    client_reject: float = 0.0  # the same, of a rejected search
    jitter: float = 0.2  # coefficient of variation; 1 is exponential

    def scaled(self, factor: float) -> "Work":
        """The same work on a machine that is `factor` times as slow."""
        times = {name: factor * value for name, value in asdict(self).items() if name != "jitter"}
        return Work(**times, jitter=self.jitter)


@dataclass(frozen=True)
class Cell:
    """Ingresses and the replicas behind them. `max_…`: of one ingress. `cores`: shared; None: their own."""

    work: Work
    ingresses: int = 1
    sketch_replicas: int = 1
    fusion_replicas: int = 1
    cores: int | None = None
    max_group_size: int = 16
    max_concurrent_groups: float = 2
    max_queued: float = 256
    deadline_s: float = 10.0
    sketch_share: float = 2 / 3  # of the searches; the load generator sends a third of each kind


@dataclass(frozen=True)
class Scaling:
    """Serve's autoscaling of the ingress (`autoscaling_config`); `start_s`: until a new replica answers."""

    target: float
    max_replicas: int
    upscale_delay_s: float
    downscale_delay_s: float
    start_s: float
    look_back_s: float = 30.0


@dataclass
class Outcomes:
    """Counts by outcome (`ok`, `shed`, `late`), and `(end, duration)` of the answered searches (s)."""

    counts: Counter[str] = field(default_factory=Counter)
    arrived: int = 0
    in_flight: int = 0
    answers: list[tuple[float, float]] = field(default_factory=list)
    replicas: list[tuple[float, int]] = field(default_factory=list)  # (time, ingresses) at each change

    def quantile_s(self, share: float, since: float = 0.0) -> float:
        """A quantile of the durations of searches that began after `since`; infinite without any."""
        durations = [took for end, took in self.answers if end - took >= since]
        return float(np.quantile(durations, share)) if durations else math.inf


@dataclass(eq=False)
class _Search:
    arrived: float
    has_sketch: bool
    done: simpy.Event


class _Replicas:
    """Replicas of a deployment as tokens: whoever takes one computes. Their number may change meanwhile."""

    def __init__(self, env: simpy.Environment, count: int) -> None:
        self.idle, self.count, self._surplus = simpy.Store(env), 0, 0
        self.change(count)

    def change(self, by: int) -> None:
        """Add replicas, or stop `-by` of them, each when its work ends."""
        self.count += by
        self._surplus -= min(0, by)
        for _ in range(by):
            self.idle.put(None)

    def release(self) -> None:
        """Return a token."""
        if self._surplus:
            self._surplus -= 1
        else:
            self.idle.put(None)


class Endpoint:
    """The processes of one cell."""

    def __init__(self, env: simpy.Environment, cell: Cell) -> None:
        self.env, self.cell, self.outcomes = env, cell, Outcomes()
        self._machine = Machine(env, cell.cores, cell.work.jitter)
        self._ingress = _Replicas(env, cell.ingresses)
        self._sketch = _Replicas(env, cell.sketch_replicas)
        self._fusion = _Replicas(env, cell.fusion_replicas)
        self._queue = deque[_Search]()
        self._groups, self._seconds_each = 0, 0.0

    def search(self) -> ProcessGenerator:
        """One search, from its arrival to its answer or rejection."""
        cell, outcomes = self.cell, self.outcomes
        outcomes.arrived += 1
        started = self.env.now
        if self._is_full():
            outcomes.counts["shed"] += 1
            yield from self._machine.compute(cell.work.client_reject)
            yield from self._run(self._ingress, cell.work.reject)
            return
        ahead = outcomes.in_flight
        outcomes.in_flight += 1
        yield from self._machine.compute(cell.work.client / 2)
        yield from self._run(self._ingress, cell.work.ingress / 2)
        search = _Search(started, self._machine.random.random() < cell.sketch_share, self.env.event())
        self._queue.append(search)
        self._send_groups()
        outcome = str((yield search.done))
        yield from self._run(self._ingress, cell.work.ingress / 2)
        yield from self._machine.compute(cell.work.client / 2)
        outcomes.in_flight -= 1
        outcomes.counts[outcome] += 1
        if outcome == "ok":
            outcomes.answers.append((self.env.now, self.env.now - started))
            self._estimate((self.env.now - started) / (ahead + 1), ahead)

    def _is_full(self) -> bool:
        cell, in_flight = self.cell, self.outcomes.in_flight
        limit = cell.max_concurrent_groups * cell.max_group_size + cell.max_queued
        return (
            in_flight >= limit * self._ingress.count or in_flight * self._seconds_each > cell.deadline_s / 2
        )

    def _estimate(self, seconds_each: float, ahead: int) -> None:
        if ahead >= _MIN_AHEAD or seconds_each <= self._seconds_each:
            self._seconds_each += _WEIGHT * (seconds_each - self._seconds_each)

    def _send_groups(self) -> None:
        cell = self.cell
        while self._queue and (
            self._groups < cell.max_concurrent_groups * self._ingress.count
            or len(self._queue) >= cell.max_group_size
        ):
            size = min(cell.max_group_size, len(self._queue))
            self._groups += 1
            self.env.process(self._answer([self._queue.popleft() for _ in range(size)]))

    def _answer(self, group: list[_Search]) -> ProcessGenerator:
        work, active = self.cell.work, []
        for search in group:
            is_late = self.env.now - search.arrived > self.cell.deadline_s
            search.done.succeed("late") if is_late else active.append(search)
        if active:
            self.env.process(self._machine.compute(work.background, priority=1))
            yield from self._machine.compute(work.call)
            if sketches := sum(search.has_sketch for search in active):
                yield from self._run(
                    self._sketch, work.encode_fixed + work.encode_item * sketches, priority=1
                )
            yield from self._run(self._fusion, work.search_fixed + work.search_item * len(active), priority=1)
        for search in active:
            search.done.succeed("ok")
        self._groups -= 1
        self._send_groups()

    def _run(self, replicas: _Replicas, work_s: float, priority: int = 0) -> ProcessGenerator:
        yield replicas.idle.get()
        yield from self._machine.compute(work_s, priority)
        replicas.release()

    def arrivals(self, rate: float) -> ProcessGenerator:
        """An open loop: a Poisson process of `rate` searches per second."""
        while True:
            yield self.env.timeout(self._machine.random.exponential(1 / rate))
            self.env.process(self.search())

    def client(self) -> ProcessGenerator:
        """A client of a closed loop: its next search follows the answer."""
        while True:
            yield self.env.process(self.search())

    def autoscale(self, scaling: Scaling) -> ProcessGenerator:
        """Serve's rule: ongoing requests over the target, averaged, once it holds for the delay."""
        window = deque[int](maxlen=int(scaling.look_back_s / _METRICS_PERIOD_S))
        since: dict[bool, float] = {}  # is_upscale → when first wanted
        while True:
            yield self.env.timeout(_METRICS_PERIOD_S)
            window.append(self.outcomes.in_flight)
            change = desired_replicas(sum(window) / len(window), scaling) - self._ingress.count
            since = {change > 0: since.get(change > 0, self.env.now)} if change else {}
            delay = scaling.upscale_delay_s if change > 0 else scaling.downscale_delay_s
            if change and self.env.now - since[change > 0] >= delay:
                since = {}
                yield self.env.timeout(scaling.start_s if change > 0 else 0)
                self._ingress.change(change)
                self.outcomes.replicas.append((self.env.now, self._ingress.count))


def desired_replicas(ongoing: float, scaling: Scaling) -> int:
    """The replicas that Serve wants for so many ongoing requests, before its delays."""
    return min(scaling.max_replicas, max(1, math.ceil(ongoing / scaling.target)))


def simulate_closed(cell: Cell, clients: int, seconds: float) -> Outcomes:
    """The endpoint under `clients` of a closed loop."""
    env = simpy.Environment()
    endpoint = Endpoint(env, cell)
    for _ in range(clients):
        env.process(endpoint.client())
    env.run(until=seconds)
    return endpoint.outcomes


def simulate_open(cell: Cell, rate: float, seconds: float, scaling: Scaling | None = None) -> Outcomes:
    """The endpoint under a Poisson process of `rate` searches per second."""
    env = simpy.Environment()
    endpoint = Endpoint(env, cell)
    env.process(endpoint.arrivals(rate))
    if scaling:
        env.process(endpoint.autoscale(scaling))
    env.run(until=seconds)
    return endpoint.outcomes
