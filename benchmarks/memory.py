"""Whether training needs more memory for more data: the same recipe on few photos and on ten times as many.

`python benchmarks/memory.py` draws the pairs itself. Peaks, in MiB, of what each process of Ray holds for
itself and of the object store, sampled while `train.py` runs.
The last line is JSON: `ratio` is many against few.
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
EVERY_S = 0.2
STORE = "raylet"  # the object store is shared memory of this process


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Train on `--photos` and on ten times as many, and compare the peaks."""
    connect()
    few, many = (_peaks(count, args) for count in (args.photos, 10 * args.photos))
    ratio = {name: round(many[name] / few[name], 3) for name in few if name in many}
    return {"photos": [args.photos, 10 * args.photos], "few_mib": few, "many_mib": many, "ratio": ratio}


def _peaks(photos: int, args: argparse.Namespace) -> dict[str, float]:
    """MiB by kind of process."""
    with tempfile.TemporaryDirectory() as folder:
        shards = f"{folder}/shards"
        given = ["--source", f"synthetic:{photos}", "--out", shards]
        prepare_shards.main(prepare_shards.parser().parse_args(given))
        watch = Watch()
        watch.start()
        given = ["--recipe", args.recipe, "--shards", shards, "--out", f"{folder}/out", "--set", *args.set]
        train.main(train.parser().parse_args(given))
        return watch.stop()


class Watch(threading.Thread):
    """Samples the memory of this process and of all that it started, by kind, until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._ended = threading.Event()
        self._peaks: dict[str, float] = defaultdict(float)

    def run(self) -> None:
        """Called by `start`."""
        while not self._ended.wait(EVERY_S):
            this = psutil.Process()
            self._note("driver", this)
            for process in this.children(recursive=True):  # Ray's, where this process has started it
                self._look_at(process)

    def _look_at(self, process: psutil.Process) -> None:
        try:
            if kind := _kind(process.cmdline()):
                self._note(kind, process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return  # ended since it was listed

    def _note(self, kind: str, process: psutil.Process) -> None:
        memory = process.memory_full_info()
        held = memory.shared if kind == STORE else memory.uss
        self._peaks[kind] = max(self._peaks[kind], round(held / MIB, 1))

    def stop(self) -> dict[str, float]:
        """The peaks so far."""
        self._ended.set()
        self.join()
        return dict(self._peaks)


def _kind(command: list[str]) -> str | None:
    """What a process of Ray works on; None for any other, and for those that only wait."""
    words = " ".join(command)
    if Path(words.split(" ")[0]).name == STORE:
        return STORE
    busy = words.startswith("ray::") and not words.startswith("ray::IDLE")
    return words.split("(")[0].split(".")[0].removeprefix("ray::").strip() if busy else None


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("benchmarks/memory.py", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--recipe", default="smoke")
    parser.add_argument("--set", nargs="*", metavar="FIELD=VALUE", default=["shuffle_window=128"])
    return parser


if __name__ == "__main__":
    run(main, parser())
