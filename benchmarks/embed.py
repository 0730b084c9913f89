"""Embedding as users run it against what the same machine could do, and against a plain DataLoader script.

`python benchmarks/embed.py` makes its pictures (JPEG, 256 to 384 pixels a side) and a model with no training.
Four sides, one after another: decoding alone, one process a core; the model alone, on resident tensors; the
DataLoader script (these three in `plain.py`); `embed_gallery`. The last two make the same: vectors, small
pictures, hashes of content, on disk. Rates are photos a second once they flow; `whole_s` are seconds from
start to end, with processes and models loaded on the way.
The last line is JSON: `vs_ceiling` is ours against the lower of decoding and model. Where both share their
cores, as without a GPU, no job reaches that: `vs_shared_ceiling` is against 1 / (1/decoding + 1/model).
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from PIL import Image

from benchmarks import plain
from ray_jobs import embed_gallery
from ray_jobs.cli import run
from ray_jobs.cluster.connection import connect
from ray_jobs.recipes import recipe as named_recipe
from stbir.model import checkpoint
from stbir.model.builder import build

_FOLDERS = 20


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Make pictures and a model, run the four sides, print the table."""
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        make_pictures(Path(folder) / "photos", args.photos)
        model = make_model(f"{folder}/checkpoint", args.recipe)
        rates, plain_s = {}, 0.0
        for side in plain.SIDES:
            began = time.perf_counter()
            rates[side] = _plain(side, model, folder)
            plain_s = time.perf_counter() - began  # of the last, the script
            print(f"{side}: {rates[side]:.1f} photos/s, {plain_s:.0f} s in all", file=sys.stderr, flush=True)
        rates["ours"], ours_s = _ours(model, folder, args)
    return _table(rates, {"dataloader": plain_s, "ours": ours_s}, args.photos)


def make_pictures(folder: Path, count: int) -> None:
    """Crops of a few large drawn grounds: each another, made in a millisecond."""
    rng = np.random.default_rng(0)
    grounds = [_ground(rng) for _ in range(4)]
    for number in range(count):
        width, height = (int(side) for side in rng.integers(256, 385, 2))
        left, top = (int(side) for side in rng.integers(0, 1024 - 384, 2))
        crop = grounds[number % 4].crop((left, top, left + width, top + height))
        path = folder / f"kind {number % _FOLDERS:02}" / f"{number:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        crop.save(path, "JPEG", quality=88)


def _ground(rng: np.random.Generator) -> Image.Image:
    """1024 x 1024, coarse and fine structure: about 20 kB of JPEG a picture cut from it."""
    coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).resize(
        (1024, 1024), Image.Resampling.BICUBIC
    )
    fine = rng.normal(0, 6, (1024, 1024, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + fine, 0, 255).astype(np.uint8))


def make_model(uri: str, name: str) -> str:
    """A checkpoint of the recipe with random weights."""
    recipe = named_recipe(name)
    bare = replace(recipe.model, photo=replace(recipe.model.photo, weights=None))
    if bare.sketch is not None:
        bare = replace(bare, sketch=replace(bare.sketch, weights=None))
    recipe = replace(recipe, model=bare)
    checkpoint.save(uri, "000", build(recipe.model), recipe, made_from="", counts={})
    return uri


def _plain(side: str, model: str, folder: str) -> float:
    """In a process of its own, with its start: what a script costs that is run by itself."""
    command = [sys.executable, "-m", "benchmarks.plain", side, model, f"{folder}/photos", f"{folder}/plain"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, text=True, cwd=Path(__file__).parent.parent
    )
    return float(done.stdout.splitlines()[-1])


def _ours(model: str, folder: str, args: argparse.Namespace) -> tuple[float, float]:
    began = time.perf_counter()
    connect()
    words = ["--checkpoint", model, "--photos", f"folder:{folder}/photos", "--gallery", f"{folder}/gallery"]
    words += ["--batch", str(args.batch)] if args.batch else []
    summary = embed_gallery.main(embed_gallery.parser().parse_args(words))
    ray.shutdown()
    print(f"the encoder waited {summary['waited']:.1%}", file=sys.stderr)
    return float(summary["photos_per_s"]), time.perf_counter() - began


def _table(rates: dict[str, float], whole_s: dict[str, float], photos: int) -> dict[str, Any]:
    ours = rates["ours"]
    shared = 1 / (1 / rates["decoding"] + 1 / rates["encoding"])
    for name, rate in rates.items():
        print(f"{name:12} {rate:9.1f} photos/s   ours is {ours / rate:5.2f} of it", file=sys.stderr)
    return {
        "photos": photos,
        "photos_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "whole_s": {name: round(seconds, 1) for name, seconds in whole_s.items()},
        "vs_ceiling": round(ours / min(rates["decoding"], rates["encoding"]), 3),
        "vs_shared_ceiling": round(ours / shared, 3),
        "vs_dataloader": round(ours / rates["dataloader"], 3),
        "whole_vs_dataloader": round(whole_s["dataloader"] / whole_s["ours"], 3),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("benchmarks/embed.py", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--photos", type=int, default=20_000)
    add(
        "--recipe",
        default="chairs_cpu",
        help="whose photo tower encodes, with random weights (%(default)s)",
    )
    add("--batch", type=int, help="as of embed_gallery")
    add(
        "--scratch",
        metavar="FOLDER",
        help="where pictures and galleries lie meanwhile (default: as the system)",
    )
    return parser


if __name__ == "__main__":
    run(main, parser())
