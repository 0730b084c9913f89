"""Compares the peak memory of training on N and 10 N photos.

`python benchmarks/memory.py` makes the photos. It samples the private memory (MiB) of each Ray process and of
the object store while `train.py` runs.
The last line is JSON: `ratio` is 10 N over N by kind of process.
"""

import argparse
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil

from ray_jobs import prepare_shards, train
from ray_jobs.cli import run
from ray_jobs.cluster.connection import connect

MIB = 2**20
SAMPLE_S = 0.2
OBJECT_STORE = "raylet"  # its shared memory is the object store


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Train on `--photos` and on ten times as many, and compare the peaks."""
    connect()
    few, many = (_peaks(count, args) for count in (args.photos, 10 * args.photos))
    ratio = {name: round(many[name] / few[name], 3) for name in few if name in many}
    return {"photos": [args.photos, 10 * args.photos], "few_mib": few, "many_mib": many, "ratio": ratio}


def _peaks(photos: int, args: argparse.Namespace) -> dict[str, float]:
    """Peak MiB by kind of process."""
    with tempfile.TemporaryDirectory() as folder:
        shards = f"{folder}/shards"
        arguments = ["--source", f"synthetic:{photos}", "--out", shards]
        prepare_shards.main(prepare_shards.parser().parse_args(arguments))
        sampler = MemorySampler()
        sampler.start()
        arguments = [
            "--recipe",
            args.recipe,
            "--shards",
            shards,
            "--out",
            f"{folder}/out",
            "--set",
            *args.set,
        ]
        train.main(train.parser().parse_args(arguments))
        return sampler.stop()


class MemorySampler(threading.Thread):
    """Samples the memory of this process and its children by kind, until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._stopped = threading.Event()
        self._peaks: dict[str, float] = defaultdict(float)

    def run(self) -> None:
        """Sample until `stop`; called by `start`."""
        while not self._stopped.wait(SAMPLE_S):
            this = psutil.Process()
            self._record("driver", this)
            for process in this.children(recursive=True):  # Ray, if this process started it
                self._sample(process)

    def _sample(self, process: psutil.Process) -> None:
        try:
            if kind := _kind(process.cmdline()):
                self._record(kind, process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return  # it has ended

    def _record(self, kind: str, process: psutil.Process) -> None:
        memory = process.memory_full_info()
        size = memory.shared if kind == OBJECT_STORE else memory.uss
        self._peaks[kind] = max(self._peaks[kind], round(size / MIB, 1))

    def stop(self) -> dict[str, float]:
        """Stop sampling; the peaks."""
        self._stopped.set()
        self.join()
        return dict(self._peaks)


def _kind(command: list[str]) -> str | None:
    """Kind of a Ray process; None for idle and other processes."""
    command_line = " ".join(command)
    if Path(command_line.split(" ")[0]).name == OBJECT_STORE:
        return OBJECT_STORE
    is_busy = command_line.startswith("ray::") and not command_line.startswith("ray::IDLE")
    return command_line.split("(")[0].split(".")[0].removeprefix("ray::").strip() if is_busy else None


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("benchmarks/memory.py", description=(__doc__ or "").split(".")[0])
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--recipe", default="smoke")
    parser.add_argument("--set", nargs="*", metavar="FIELD=VALUE", default=["shuffle_window=128"])
    return parser


if __name__ == "__main__":
    run(main, parser())
