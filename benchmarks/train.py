"""Compares the training pipeline with training on resident tensors.

`python benchmarks/train.py --recipe R --shards URI` prints samples per second by stage: of the pipeline
(shards, Ray Data, Ray Train), and of resident batches in a process with the same environment, before and
after it. The last line is JSON: `vs_resident` is the ratio by stage.
"""

import argparse
import functools
import itertools
import json
import math
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import ray
import torch

from ray_jobs import train
from ray_jobs.cli import run
from ray_jobs.cluster.connection import connect
from ray_jobs.recipes import recipe as named_recipe
from ray_jobs.recipes.override import override
from ray_jobs.training import decode
from ray_jobs.training.class_labels import index_photos_with_labels
from ray_jobs.training.job import WORKER_ENVIRONMENT
from stbir.config import Recipe
from stbir.data.photo_index import PhotoIndex
from stbir.data.sampling import samples_per_epoch
from stbir.data.shards import open_shards
from stbir.errors import InputError
from stbir.model.builder import build_retriever
from stbir.storage.folder import Folder
from stbir.training import loop
from stbir.training.stages import TrainableModel, start_stage

WARM_UP = 3  # steps of each stage, not measured
Steps = dict[str, list[dict[str, Any]]]  # by stage


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the table, return the summary."""
    if args.steps <= WARM_UP:
        raise InputError(f"--steps: {args.steps} must exceed the {WARM_UP} warm-up steps")
    shards, aux = open_shards(args.shards), [open_shards(uri) for uri in args.aux_shards]
    long = override(named_recipe(args.recipe), args.set)
    photos, classes = index_photos_with_labels(long, shards, args.train_split.split(","), aux)
    epochs = {
        stage.name: num_epochs(samples_per_epoch(photos, stage), long.batch_size, args.steps)
        for stage in long.stages
    }
    recipe = replace(long, stages=tuple(replace(s, epochs=epochs[s.name]) for s in long.stages))
    connect()
    before = _resident(recipe, photos, len(classes), args.steps)
    pipeline = run_pipeline(args, [f"stages.{name}.epochs={count}" for name, count in epochs.items()])
    after = _resident(recipe, photos, len(classes), args.steps)
    return _table(recipe, pipeline, before, after)


def num_epochs(samples: int, batch: int, steps: int) -> int:
    """The fewest epochs with so many steps."""
    return math.ceil(steps * batch / samples)


def run_pipeline(args: argparse.Namespace, short: list[str]) -> Steps:
    """Run train.py; its log by stage."""
    with tempfile.TemporaryDirectory() as out:
        arguments = ["--recipe", args.recipe, "--shards", args.shards]
        arguments += ["--train-split", args.train_split, "--out", out]
        arguments += ["--aux-shards", *args.aux_shards] if args.aux_shards else []
        train.main(train.parser().parse_args([*arguments, "--set", *args.set, *short]))
        folder = Folder(out)
        lines = [
            line
            for name in folder.list_files("log/*.jsonl")
            for line in folder.read(name).decode().splitlines()
        ]
    return _by_stage(json.loads(line) for line in lines)


def _resident(recipe: Recipe, photos: PhotoIndex, classes: int, steps: int) -> Steps:
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    task = ray.remote(num_cpus=1, num_gpus=gpus, runtime_env={"env_vars": WORKER_ENVIRONMENT})(
        _train_resident
    )
    timings: Steps = ray.get(task.remote(recipe, photos, classes, steps))
    return timings


def _train_resident(recipe: Recipe, photos: PhotoIndex, classes: int, steps: int) -> Steps:
    """Train `steps` of each stage on decoded batches; the library's loop measures."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(os.cpu_count() or 1)
    learner = TrainableModel(build_retriever(recipe.model, recipe.seed), classes).to(device)
    by_number = itertools.groupby(decode.iter_local_batches(photos, recipe), key=lambda batch: batch.stage)
    done = []
    for number, batches in by_number:
        resident_batches = list(batches)[:steps]  # all are decoded before the first step
        stage_run = start_stage(recipe.stages[number], recipe, learner, len(resident_batches))
        done += [
            asdict(metrics) for metrics in loop.train(stage_run, recipe, photos, resident_batches, device)
        ]
    return _by_stage(done)


def _by_stage(steps: Iterable[dict[str, Any]]) -> Steps:
    stages: Steps = defaultdict(list)
    for step in steps:
        stages[step["stage"]].append(step)
    return dict(stages)


def _table(recipe: Recipe, pipeline: Steps, before: Steps, after: Steps) -> dict[str, Any]:
    rates = {stage: rate(steps, recipe.batch_size) for stage, steps in pipeline.items()}
    resident = {
        stage: statistics.mean(
            (rate(before[stage], recipe.batch_size), rate(after[stage], recipe.batch_size))
        )
        for stage in rates
    }
    ratios = {stage: samples_per_s / resident[stage] for stage, samples_per_s in rates.items()}
    waited = {stage: waited_share(steps) for stage, steps in pipeline.items()}
    print(f"{'stage':10} {'samples/s':>10} {'resident':>10} {'ratio':>6} {'waited':>7}", file=sys.stderr)
    for stage, samples_per_s in rates.items():
        line = f"{stage:10} {samples_per_s:10.1f} {resident[stage]:10.1f} {ratios[stage]:6.2f}"
        print(f"{line} {waited[stage]:7.1%}", file=sys.stderr)
    return {
        "recipe": recipe.name,
        "batch": recipe.batch_size,
        "samples_per_s": _rounded(rates),
        "resident_samples_per_s": _rounded(resident),
        "waited": _rounded(waited),
        "vs_resident": _rounded(ratios),
    }


def rate(steps: list[dict[str, Any]], batch: int) -> float:
    """Samples per second of the steps of a stage, without warm-up."""
    counted = steps[WARM_UP:]
    spent = sum(float(step["waited_s"] + step["worked_s"]) for step in counted)
    return len(counted) * batch / spent


def waited_share(steps: list[dict[str, Any]]) -> float:
    """The share of the time that a stage waits for inputs, without warm-up."""
    waited, worked = (sum(step[name] for step in steps[WARM_UP:]) for name in ("waited_s", "worked_s"))
    return float(waited / (waited + worked))


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("benchmarks/train.py", description=(__doc__ or "").split(".")[0])
    add = parser.add_argument
    add("--recipe", required=True)
    add("--shards", required=True, metavar="URI")
    add("--train-split", default="train")
    add("--steps", type=int, default=20, help="minimum steps of each stage")
    several = functools.partial(add, nargs="*", action="extend", default=[])
    several("--aux-shards", metavar="URI")
    several("--set", metavar="FIELD=VALUE")
    return parser


if __name__ == "__main__":
    run(main, parser())
