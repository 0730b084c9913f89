"""Compares the peak memory of embedding N and 10 N photos.

`python benchmarks/embed_memory.py` makes the photos. It samples the private memory (MiB) of each Ray process
and of the object store while `embed_gallery` runs.
The last line is JSON: `ratio` is 10 N over N by kind of process, `total` that of the sums.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.embed import make_model, make_photos, run_embed_gallery
from benchmarks.memory import MemorySampler
from ray_jobs.cli import run
from ray_jobs.cluster.connection import connect


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Embed `--photos` and ten times as many, and compare the peaks."""
    connect()
    few, many = (_peaks(count, args) for count in (args.photos, 10 * args.photos))
    ratio = {name: round(many[name] / few[name], 3) for name in few if name in many}
    ratio["total"] = round(sum(many.values()) / sum(few.values()), 3)
    return {"photos": [args.photos, 10 * args.photos], "few_mib": few, "many_mib": many, "ratio": ratio}


def _peaks(photos: int, args: argparse.Namespace) -> dict[str, float]:
    """Peak MiB by kind of process."""
    with tempfile.TemporaryDirectory() as folder:
        make_photos(Path(folder) / "photos", photos)
        model = make_model(f"{folder}/checkpoint", args.recipe)
        sampler = MemorySampler()
        sampler.start()
        run_embed_gallery(model, folder)
        return sampler.stop()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("benchmarks/embed_memory.py", description=(__doc__ or "").split(".")[0])
    parser.add_argument("--photos", type=int, default=5000)
    parser.add_argument("--recipe", default="smoke")
    return parser


if __name__ == "__main__":
    run(main, parser())
