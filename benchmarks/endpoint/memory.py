"""Memory of the processes of Serve while they are under load: whether one of them ends or keeps growing."""

import contextlib
import threading

import numpy as np
import psutil

from benchmarks.endpoint.sides import serve_processes

MIB = 2**20
MAX_GROWTH = 1.1  # of the memory in the last quarter over the second: allocators keep memory, a leak grows
SAMPLE_S = 1.0


class Memory:
    """Resident memory of the processes of Serve, sampled every second."""

    def __init__(self, pid: int) -> None:
        self.pid, self.names = pid, dict[int, str]()
        self.samples: list[dict[int, float]] = []  # MiB by process id
        self.stop, self.thread = threading.Event(), threading.Thread(target=self._sample)

    def __enter__(self) -> "Memory":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def _sample(self) -> None:
        while not self.stop.wait(SAMPLE_S):
            sample: dict[int, float] = {}
            for name, process in serve_processes(self.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    sample[process.pid] = process.memory_info().rss / MIB
                    self.names[process.pid] = name
            self.samples.append(sample)

    @property
    def mib(self) -> list[float]:
        """The sum over the processes, by sample."""
        return [sum(sample.values()) for sample in self.samples]

    @property
    def growth(self) -> float:
        """The mean of the last quarter of the samples over that of the second."""
        quarters = np.array_split(self.mib, 4)
        return float(quarters[3].mean() / quarters[1].mean())

    @property
    def ended(self) -> list[str]:
        """The processes of the first sample that are missing in the last."""
        ended = self.samples[0].keys() - self.samples[-1].keys()
        return sorted(f"{self.names[pid]} {pid}" for pid in ended)
