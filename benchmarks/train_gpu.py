"""Speed and memory of training on a GPU, without pretrained weights, on synthetic photos.

`python benchmarks/train_gpu.py` makes the shards and measures each batch size and stage of recipe
`reference`: steps on one resident batch (samples/s, MFU, peak memory), then `train.py` (samples/s, share of
the time waiting for inputs). MFU is the model FLOPs of a second over the GPU's dense bf16 peak; gradient
caching computes more, which does not count. The last line is JSON. `--device cpu --recipe smoke` tries the
script without a GPU.
"""

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.train import WARM_UP, num_epochs, rate, run_pipeline, waited_share
from ray_jobs import prepare_shards
from ray_jobs.cli import run
from ray_jobs.recipes import recipe as named_recipe
from ray_jobs.recipes.override import override
from ray_jobs.training import decode
from ray_jobs.training.class_labels import index_photos_with_labels
from stbir.config import Recipe
from stbir.data.batch import Batch
from stbir.data.photo_index import PhotoIndex
from stbir.data.sampling import iter_steps, samples_per_epoch
from stbir.data.shards import open_shards
from stbir.errors import InputError
from stbir.model.builder import build_retriever
from stbir.training import loop
from stbir.training.stages import TrainableModel, start_stage

GIB = 2**30
FLOP_SAMPLES = 16  # samples of the step whose FLOPs are counted; they grow linearly, but for the loss
# Dense bf16 peak in FLOP/s by the name that the driver reports, from NVIDIA's data sheets.
PEAK_FLOPS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
}
Row = dict[str, Any]


def main(args: argparse.Namespace) -> Row:
    """Make shards, measure each batch size, print the table, return the summary."""
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("--device: no GPU is visible to torch; --device cpu --recipe smoke tries the script")
    if args.steps <= WARM_UP:
        raise InputError(f"--steps: {args.steps} must exceed the {WARM_UP} warm-up steps")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as shards:
        arguments = ["--source", f"synthetic:{args.photos}", "--out", shards]
        prepare_shards.main(prepare_shards.parser().parse_args(arguments))
        for batch_size in args.batch_sizes:
            rows += measure(args, shards, batch_size, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": name, "torch": torch.__version__, "recipe": args.recipe, "set": args.set, "rows": rows}


def measure(args: argparse.Namespace, shards: str, batch_size: int, device: torch.device) -> Iterator[Row]:
    """A row a stage, printed: resident steps, then the pipeline, if the batch fits into memory."""
    settings = [*args.set, f"batch_size={batch_size}", *without_weights(named_recipe(args.recipe))]
    recipe = override(named_recipe(args.recipe), settings)
    photos, classes = index_photos_with_labels(recipe, open_shards(shards), ["train"])
    numbers = range(len(recipe.stages))
    rows = [measure_stage(recipe, number, photos, len(classes), args.steps, device) for number in numbers]
    torch.cuda.empty_cache()  # the pipeline trains in another process on the same GPU
    if all(row["samples_per_s"] for row in rows):
        settings += [
            f"stages.{s.name}.epochs={num_epochs(samples_per_epoch(photos, s), batch_size, args.steps)}"
            for s in recipe.stages
        ]
        pipeline = argparse.Namespace(
            recipe=args.recipe, shards=shards, train_split="train", aux_shards=[], set=settings
        )
        for row, steps in zip(rows, run_pipeline(pipeline, []).values(), strict=True):
            row |= {"pipeline_samples_per_s": round(rate(steps, batch_size), 1)}
            row |= {"pipeline_waited": round(waited_share(steps), 4)}
    for row in rows:
        print(json.dumps(row), file=sys.stderr)
        yield row


def without_weights(recipe: Recipe) -> list[str]:
    """Settings for random weights: pretrained ones would be downloaded, and do not change the speed."""
    parts = {"photo": recipe.model.photo, "sketch": recipe.model.sketch, "text": recipe.model.text}
    return [f"model.{name}.weights=null" for name, part in parts.items() if part and part.weights]


def measure_stage(
    recipe: Recipe, number: int, photos: PhotoIndex, num_classes: int, steps: int, device: torch.device
) -> Row:
    """Speed, MFU and peak memory of steps on one resident batch; None each if it exceeds the GPU's memory."""
    single = replace(recipe, stages=(recipe.stages[number],))
    row: Row = {"batch_size": recipe.batch_size, "stage": recipe.stages[number].name}
    flops_per_sample = count_flops(single, photos, num_classes, device)
    try:
        metrics = train_resident(single, photos, num_classes, steps, device)
    except torch.OutOfMemoryError:
        print(f"batch size {recipe.batch_size}: out of memory; try --set chunk_size=256", file=sys.stderr)
        return row | dict.fromkeys(("samples_per_s", "mfu", "peak_gib"))
    samples_per_s = rate([asdict(step) for step in metrics], recipe.batch_size)
    peak = peak_flops(device)
    return row | {
        "samples_per_s": round(samples_per_s, 1),
        "gflop_per_sample": round(flops_per_sample / 1e9, 3),
        "mfu": round(samples_per_s * flops_per_sample / peak, 4) if peak else None,
        "peak_gib": peak_gib(device),
    }


def count_flops(recipe: Recipe, photos: PhotoIndex, num_classes: int, device: torch.device) -> float:
    """Model FLOPs of a sample: of two steps without those of one, which may build a feature cache before."""
    few = replace(recipe, batch_size=min(FLOP_SAMPLES, recipe.batch_size), chunk_size=None)
    totals = list[int]()
    for steps in (1, 2):
        with FlopCounterMode(display=False) as counter:
            train_resident(few, photos, num_classes, steps, device)
        totals.append(counter.get_total_flops())
    return (totals[1] - totals[0]) / few.batch_size


def peak_flops(device: torch.device) -> float | None:
    """The dense bf16 peak of the device; None if it is not in the table."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)


def peak_gib(device: torch.device) -> float | None:
    """Peak memory of tensors on a GPU since the last reset; None on a CPU."""
    return round(torch.cuda.max_memory_allocated(device) / GIB, 2) if device.type == "cuda" else None


def train_resident(
    recipe: Recipe, photos: PhotoIndex, num_classes: int, steps: int, device: torch.device
) -> list[loop.Metrics]:
    """Train the only stage of `recipe` on its first batch, `steps` times."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # as `ray_jobs/training/worker.py`
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    model = TrainableModel(build_retriever(recipe.model, recipe.seed), num_classes).to(device)
    stage_run = start_stage(recipe.stages[0], recipe, model, steps)
    batches = itertools.repeat(first_batch(recipe, photos), steps)
    return list(loop.train(stage_run, recipe, photos, batches, device))


def first_batch(recipe: Recipe, photos: PhotoIndex) -> Batch:
    """The decoded samples of the first step."""
    [share] = decode.read_shares(photos, recipe, 1, [next(iter_steps(photos, recipe))])
    return decode.decode_share(share, recipe, [samples_per_epoch(photos, stage) for stage in recipe.stages])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        "benchmarks/train_gpu.py", description=(__doc__ or "").split(".")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add("--recipe", default="reference")
    add("--device", choices=["cuda", "cpu"], default="cuda")
    add("--batch-sizes", type=int, nargs="+", default=[256, 1024])
    add("--photos", type=int, default=4000, help="synthetic photos (%(default)s)")
    add("--steps", type=int, default=20, help="steps of each stage (%(default)s)")
    add("--set", metavar="FIELD=VALUE", nargs="*", default=[], help="e.g. chunk_size=256")
    return parser


if __name__ == "__main__":
    run(main, parser())
