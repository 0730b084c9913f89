"""Processors of a simulated machine: work takes CPU seconds, in turns where processes share the cores."""

import contextlib

import numpy as np
import simpy
from simpy.events import ProcessGenerator


class Machine:
    """Cores that processes share in quanta by priority; None: no process waits for another.

    Work is multiplied by a gamma variable of mean 1 and coefficient of variation `jitter`; 1 is exponential.
    """

    def __init__(
        self, env: simpy.Environment, cores: int | None, jitter: float, quantum_s: float = 0.004
    ) -> None:
        self.env, self.random = env, np.random.default_rng(0)
        self._cores = simpy.PreemptiveResource(env, cores) if cores else None
        self._jitter, self._quantum_s = jitter, quantum_s

    def compute(self, work_s: float, priority: int = 0) -> ProcessGenerator:
        """A thread's CPU seconds; on shared cores a lower `priority` number preempts a higher one."""
        if not work_s:
            return
        left = work_s * self.random.gamma(self._jitter**-2, self._jitter**2)
        if self._cores is None:
            yield self.env.timeout(left)
            return
        while left > 1e-9:
            with self._cores.request(priority) as turn, contextlib.suppress(simpy.Interrupt):
                yield turn
                started = self.env.now
                try:
                    yield self.env.timeout(min(left, self._quantum_s))
                finally:
                    left -= self.env.now - started

    def compute_in_threads(self, work_s: float, threads: int, priority: int = 0) -> ProcessGenerator:
        """The same work divided among threads; ends with the last of them."""
        parts = [self.env.process(self.compute(work_s / threads, priority)) for _ in range(threads)]
        yield self.env.all_of(parts)
