"""Peak memory of this process and of the Ray processes that it started, by kind."""

import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

MIB = 2**20
SAMPLE_S = 0.2
OBJECT_STORE = "raylet"  # its shared memory is the object store
DRIVER = "driver"  # this process


def compare_peaks(few: int, peaks_of: Callable[[int], dict[str, float]]) -> dict[str, Any]:
    """The peaks (MiB) with `few` photos and ten times as many, and their ratio by kind of process."""
    few_mib, many_mib = peaks_of(few), peaks_of(10 * few)
    ratio = {name: round(many_mib[name] / few_mib[name], 3) for name in few_mib if name in many_mib}
    ratio["total"] = round(sum(many_mib.values()) / sum(few_mib.values()), 3)
    return {"photos": [few, 10 * few], "few_mib": few_mib, "many_mib": many_mib, "ratio": ratio}


class MemorySampler:
    """Samples private memory while a block runs. `peaks`: MiB by kind of process."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = defaultdict(float)
        self._stopped, self._thread = threading.Event(), threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "MemorySampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stopped.wait(SAMPLE_S):
            this = psutil.Process()
            self._record(DRIVER, this)
            for process in this.children(recursive=True):  # Ray, if this process started it
                try:
                    if kind := _kind(process.cmdline()):
                        self._record(kind, process)
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue  # it has ended

    def _record(self, kind: str, process: psutil.Process) -> None:
        memory = process.memory_full_info()
        size = memory.shared if kind == OBJECT_STORE else memory.uss
        self.peaks[kind] = max(self.peaks[kind], round(size / MIB, 1))


def _kind(command: list[str]) -> str | None:
    """Kind of a Ray process; None for idle and other processes."""
    command_line = " ".join(command)
    if Path(command_line.split(" ")[0]).name == OBJECT_STORE:
        return OBJECT_STORE
    is_busy = command_line.startswith("ray::") and not command_line.startswith("ray::IDLE")
    return command_line.split("(")[0].split(".")[0].removeprefix("ray::").strip() if is_busy else None
