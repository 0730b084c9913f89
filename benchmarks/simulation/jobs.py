"""Discrete-event models of embedding (decode, encode, write) and of training (decode, step, all-reduce)."""

from dataclasses import dataclass

import simpy
from simpy.events import ProcessGenerator

from benchmarks.simulation.machine import Machine

PART_PHOTOS = 256  # stbir/catalogue
PREFETCH_PARTS = 2  # of an encoder (ray_jobs/embedding/pipeline.py)
STEPS_AHEAD = 16  # decoded steps in the object store (ray_jobs/training/ingest.py)
_QUANTUM_S = 0.05
_PARTS_EACH = 20  # simulated parts of each decoder and encoder


@dataclass(frozen=True)
class Embedding:
    """CPU seconds of a photo by stage, and what runs them. `cores`: shared by the stages; None: their own."""

    decode: float
    encode: float
    write: float
    decoders: int
    encoders: int
    threads: int = 1  # of an encoder
    cores: int | None = None

    def photos_per_s(self) -> float:
        """Photos per second in steady state: the first and the last quarter of the parts are not counted."""
        parts = _PARTS_EACH * (self.decoders + self.encoders)
        env = simpy.Environment()
        machine = Machine(env, self.cores, 0.1, _QUANTUM_S)
        window = simpy.Resource(env, PREFETCH_PARTS * self.encoders + self.decoders)
        stages = [simpy.Resource(env, count) for count in (self.decoders, self.encoders, 1)]
        ends: list[float] = []
        for _ in range(parts):
            env.process(self._embed(env, machine, window, stages, ends))
        env.run()
        first, last = parts // 4, 3 * parts // 4
        return (last - first) * PART_PHOTOS / (ends[last] - ends[first])

    def _embed(
        self,
        env: simpy.Environment,
        machine: Machine,
        window: simpy.Resource,
        stages: list[simpy.Resource],
        ends: list[float],
    ) -> ProcessGenerator:
        with window.request() as place:
            yield place
            work = ((self.decode, 1), (self.encode, self.threads), (self.write, 1))
            for stage, (photo_s, threads) in zip(stages, work, strict=True):
                with stage.request() as turn:
                    yield turn
                    yield from machine.compute_in_threads(photo_s * PART_PHOTOS, threads)
        ends.append(env.now)


@dataclass(frozen=True)
class Training:
    """Seconds of a step. `cores`: shared by the step's computation and decoding; None: a GPU computes."""

    batch: int  # samples of a worker
    compute: float  # of a sample
    decode: float  # CPU seconds of a sample
    decoders: int
    workers: int = 1
    exchange_bytes: float = 0.0
    bandwidth: float = 1e9  # bytes per second of one node
    cores: int | None = None
    jitter: float = 0.02

    @property
    def exchange_s(self) -> float:
        """A ring all-reduce: each worker sends 2 (n - 1) / n times the gradients."""
        return 2 * (self.workers - 1) / self.workers * self.exchange_bytes / self.bandwidth

    def samples_per_s(self, steps: int = 80) -> float:
        """Samples per second of all workers, after a quarter of the steps."""
        env = simpy.Environment()
        machine = Machine(env, self.cores, self.jitter, _QUANTUM_S)
        decoded, ends = simpy.Store(env, STEPS_AHEAD), list[float]()
        for _ in range(self.decoders):
            env.process(self._decode(machine, decoded))
        env.run(env.process(self._train(env, machine, decoded, steps, ends)))
        first = steps // 4
        return (steps - first) * self.batch * self.workers / (ends[-1] - ends[first - 1])

    def _decode(self, machine: Machine, decoded: simpy.Store) -> ProcessGenerator:
        while True:
            yield from machine.compute(self.batch * self.decode, priority=1)
            yield decoded.put(None)

    def _train(
        self, env: simpy.Environment, machine: Machine, decoded: simpy.Store, steps: int, ends: list[float]
    ) -> ProcessGenerator:
        threads = self.cores or 1  # a GPU is one
        for _ in range(steps):
            for _ in range(self.workers):
                yield decoded.get()
            computing = [
                env.process(machine.compute_in_threads(self.batch * self.compute, threads))
                for _ in range(self.workers)
            ]
            yield env.all_of(computing)  # the slowest worker
            yield env.timeout(self.exchange_s)
            ends.append(env.now)
