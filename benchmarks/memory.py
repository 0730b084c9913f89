"""Compares the peak memory of training on N and 10 N photos.

`python benchmarks/memory.py` makes the photos. It samples the private memory (MiB) of each Ray process and of
the object store while `train.py` runs.
The last line is JSON: `ratio` is 10 N over N by kind of process.
"""

import argparse
import tempfile
from typing import Any

from benchmarks.memory_sampler import MemorySampler, compare_peaks
from ray_jobs import prepare_shards, train
from ray_jobs.cli import run
from ray_jobs.cluster.connection import connect


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Train on `--photos` and on ten times as many, and compare the peaks."""
    connect()
    return compare_peaks(args.photos, lambda count: _peaks(count, args))


def _peaks(photos: int, args: argparse.Namespace) -> dict[str, float]:
    """Peak MiB by kind of process."""
    with tempfile.TemporaryDirectory() as folder:
        shards = f"{folder}/shards"
        arguments = ["--source", f"synthetic:{photos}", "--out", shards]
        prepare_shards.main(prepare_shards.parser().parse_args(arguments))
        arguments = ["--recipe", args.recipe, "--shards", shards, "--out", f"{folder}/out"]
        with MemorySampler() as sampler:
            train.main(train.parser().parse_args([*arguments, "--set", *args.set]))
        return sampler.peaks


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("benchmarks/memory.py", description=(__doc__ or "").split(".")[0])
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--recipe", default="smoke")
    parser.add_argument("--set", nargs="*", metavar="FIELD=VALUE", default=["shuffle_window=128"])
    return parser


if __name__ == "__main__":
    run(main, parser())
