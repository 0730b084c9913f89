"""Compares `embed_gallery` with a DataLoader script and with the limits of the machine.

`python benchmarks/embed.py` makes photos (JPEGs of 12 and 2 megapixels in turn) and an untrained model. It
measures five variants: decoding only, one process per core; the model only, on resident tensors; the
DataLoader script, with scaled decoding as here and in full as torchvision does (these four in `plain.py`);
`embed_gallery`. The last three write the same: vectors, thumbnails, content hashes. Rates are photos per
second in steady state; `whole_s` are total seconds with start-up. The last line is JSON: `vs_ceiling` is
relative to the slower of decoding and model. If both share the cores (no GPU), the ceiling is
1 / (1/decoding + 1/model): `vs_shared_ceiling`.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from PIL import Image

from benchmarks import plain
from benchmarks.endpoint.world import make_checkpoint
from ray_jobs import embed_gallery
from ray_jobs.cli import run
from ray_jobs.cluster.connection import connect
from stbir.images import encode_as

_FOLDERS = 20
_CAMERA_SIZES = ((4000, 3000), (1632, 1224))


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Make photos and a model, run the five variants, print the table."""
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        make_camera_photos(Path(folder) / "photos", args.photos)
        model = make_checkpoint(f"{folder}/checkpoint", args.recipe)
        rates, baseline_s = {}, 0.0
        for side in plain.SIDES:
            start = time.perf_counter()
            rates[side] = _run_baseline(side, model, folder)
            baseline_s = time.perf_counter() - start  # the last variant is the script
            print(
                f"{side}: {rates[side]:.1f} photos/s, {baseline_s:.0f} s in total",
                file=sys.stderr,
                flush=True,
            )
        rates["ours"], stbir_s = _embed_gallery(model, folder, args)
    return _table(rates, {"dataloader": baseline_s, "ours": stbir_s}, args.photos)


def make_photos(folder: Path, count: int, size: tuple[int, int] | None = None) -> None:
    """Write `count` distinct crops of a few large synthetic images; sides from 256 to 384 without `size`."""
    rng = np.random.default_rng(0)
    textures = [_texture(rng, (1024, 1024)) for _ in range(4)]
    for number in range(count):
        width, height = size or map(int, rng.integers(256, 385, 2))
        left, top = (int(rng.integers(0, 1024 - side)) for side in (width, height))
        crop = textures[number % 4].crop((left, top, left + width, top + height))
        path = folder / f"kind {number % _FOLDERS:02}" / f"{number:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        crop.save(path, "JPEG", quality=88)


def make_camera_photos(folder: Path, count: int) -> None:
    """Write `count` JPEGs of 12 and 2 megapixels, few images, each with bytes of its own after its end."""
    rng, images = np.random.default_rng(0), list[bytes]()
    for size in _CAMERA_SIZES * 4:
        images.append(encode_as(_texture(rng, size), "JPEG", quality=88))
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:07}.jpg").write_bytes(images[number % len(images)] + b"%07d" % number)


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """An image with coarse and fine structure, about 3 bits a pixel as JPEG."""
    coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    fine = rng.normal(0, 6, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + fine, 0, 255).astype(np.uint8))


def _run_baseline(side: str, model: str, folder: str) -> float:
    """The rate of a variant of `plain.py`, measured in its own process."""
    command = [sys.executable, "-m", "benchmarks.plain", side, model, f"{folder}/photos", f"{folder}/plain"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, text=True, cwd=Path(__file__).parent.parent
    )
    return float(done.stdout.splitlines()[-1])


def run_embed_gallery(model: str, folder: str, *options: str) -> dict[str, Any]:
    """Embed the photos of `<folder>/photos` into `<folder>/gallery`. Returns the command's summary."""
    arguments = [
        "--checkpoint",
        model,
        "--photos",
        f"folder:{folder}/photos",
        "--gallery",
        f"{folder}/gallery",
    ]
    return embed_gallery.main(embed_gallery.parser().parse_args([*arguments, *options]))


def _embed_gallery(model: str, folder: str, args: argparse.Namespace) -> tuple[float, float]:
    start = time.perf_counter()
    connect()
    summary = run_embed_gallery(model, folder, *(["--batch", str(args.batch)] if args.batch else []))
    ray.shutdown()
    print(f"the encoder waited {summary['waited']:.1%}", file=sys.stderr)
    return float(summary["photos_per_s"]), time.perf_counter() - start


def _table(rates: dict[str, float], total_s: dict[str, float], photos: int) -> dict[str, Any]:
    stbir_rate = rates["ours"]
    shared = 1 / (1 / rates["decoding"] + 1 / rates["encoding"])
    for name, rate in rates.items():
        print(
            f"{name:12} {rate:9.1f} photos/s   embed_gallery / this: {stbir_rate / rate:5.2f}",
            file=sys.stderr,
        )
    return {
        "photos": photos,
        "photos_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "whole_s": {name: round(seconds, 1) for name, seconds in total_s.items()},
        "vs_ceiling": round(stbir_rate / min(rates["decoding"], rates["encoding"]), 3),
        "vs_shared_ceiling": round(stbir_rate / shared, 3),
        "vs_dataloader": round(stbir_rate / rates["dataloader"], 3),
        "vs_scaled_dataloader": round(stbir_rate / rates["scaled_dataloader"], 3),
        "whole_vs_dataloader": round(total_s["dataloader"] / total_s["ours"], 3),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("benchmarks/embed.py", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--photos", type=int, default=2000)
    add(
        "--recipe",
        default="chairs_cpu",
        help="recipe of the photo encoder, with random weights (%(default)s)",
    )
    add("--batch", type=int, help="as in embed_gallery")
    add(
        "--scratch",
        metavar="FOLDER",
        help="folder for photos and galleries (default: the system's)",
    )
    return parser


if __name__ == "__main__":
    run(main, parser())
