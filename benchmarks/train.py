"""Training as users run it against the same training on tensors that are already there, side by side.

`python benchmarks/train.py --recipe R --shards URI`: samples a second a stage, of the whole pipeline (shards,
Ray Data, Ray Train) and of resident batches in a process with the same environment, before and after it.
The last line is JSON: `vs_resident` is the ratio by stage.
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
from ray_jobs.training.class_labels import indexed
from ray_jobs.training.job import ENVIRONMENT
from stbir.config import Recipe
from stbir.data.photo_index import Photos
from stbir.data.sampling import samples_an_epoch
from stbir.data.shards import open_shards
from stbir.errors import InputError
from stbir.model.builder import build
from stbir.storage.folder import Folder
from stbir.training import loop
from stbir.training.stages import Learner, start_stage

WARM_UP = 3  # steps of each stage that do not count
Steps = dict[str, list[dict[str, Any]]]  # of each stage


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the table, and give what the last line says."""
    if args.steps <= WARM_UP:
        raise InputError(f"--steps: {args.steps} leaves nothing after {WARM_UP} to warm up; give more")
    shards, aux = open_shards(args.shards), [open_shards(uri) for uri in args.aux_shards]
    long = override(named_recipe(args.recipe), args.set)
    photos, classes = indexed(long, shards, args.split.split(","), aux)
    epochs = {
        stage.name: _epochs(samples_an_epoch(photos, stage), long.batch_size, args.steps)
        for stage in long.stages
    }
    recipe = replace(long, stages=tuple(replace(s, epochs=epochs[s.name]) for s in long.stages))
    connect()
    before = _resident(recipe, photos, len(classes), args.steps)
    pipeline = _pipeline(args, [f"stages.{name}.epochs={count}" for name, count in epochs.items()])
    after = _resident(recipe, photos, len(classes), args.steps)
    return _table(recipe, pipeline, before, after)


def _epochs(samples: int, batch: int, steps: int) -> int:
    return math.ceil(steps * batch / samples)


def _pipeline(args: argparse.Namespace, short: list[str]) -> Steps:
    """The real command, and what it logged of each step."""
    with tempfile.TemporaryDirectory() as out:
        given = ["--recipe", args.recipe, "--shards", args.shards, "--split", args.split, "--out", out]
        given += ["--extra-shards", *args.aux_shards] if args.aux_shards else []
        train.main(train.parser().parse_args([*given, "--set", *args.set, *short]))
        folder = Folder(out)
        lines = [line for name in folder.names("log/*") for line in folder.read(name).decode().splitlines()]
    return _by_stage(json.loads(line) for line in lines)


def _resident(recipe: Recipe, photos: Photos, classes: int, steps: int) -> Steps:
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    task = ray.remote(num_cpus=1, num_gpus=gpus, runtime_env={"env_vars": ENVIRONMENT})(_train_resident)
    found: Steps = ray.get(task.remote(recipe, photos, classes, steps))
    return found


def _train_resident(recipe: Recipe, photos: Photos, classes: int, steps: int) -> Steps:
    """`steps` of each stage, decoded before the clock starts. The library's own loop measures."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(os.cpu_count() or 1)
    learner = Learner(build(recipe.model, recipe.seed), classes).to(device)
    by_number = itertools.groupby(decode.local(photos, recipe), key=lambda batch: batch.stage)
    done = []
    for number, batches in by_number:
        here = list(batches)[:steps]  # all are decoded before the first step
        stage_run = start_stage(recipe.stages[number], recipe, learner, len(here))
        done += [asdict(metrics) for metrics in loop.train(stage_run, recipe, photos, here, device)]
    return _by_stage(done)


def _by_stage(steps: Iterable[dict[str, Any]]) -> Steps:
    stages: Steps = defaultdict(list)
    for step in steps:
        stages[step["stage"]].append(step)
    return dict(stages)


def _table(recipe: Recipe, pipeline: Steps, before: Steps, after: Steps) -> dict[str, Any]:
    rates = {stage: _rate(steps, recipe.batch_size) for stage, steps in pipeline.items()}
    resident = {
        stage: statistics.mean(
            (_rate(before[stage], recipe.batch_size), _rate(after[stage], recipe.batch_size))
        )
        for stage in rates
    }
    ratios = {stage: rate / resident[stage] for stage, rate in rates.items()}
    waited = {stage: _waited(steps) for stage, steps in pipeline.items()}
    print(f"{'stage':10} {'samples/s':>10} {'resident':>10} {'ratio':>6} {'waited':>7}", file=sys.stderr)
    for stage, rate in rates.items():
        line = f"{stage:10} {rate:10.1f} {resident[stage]:10.1f} {ratios[stage]:6.2f} {waited[stage]:7.1%}"
        print(line, file=sys.stderr)
    return {
        "recipe": recipe.name,
        "batch": recipe.batch_size,
        "samples_per_s": _rounded(rates),
        "resident_samples_per_s": _rounded(resident),
        "waited": _rounded(waited),
        "vs_resident": _rounded(ratios),
    }


def _rate(steps: list[dict[str, Any]], batch: int) -> float:
    counted = steps[WARM_UP:]
    spent = sum(float(step["waited_s"] + step["worked_s"]) for step in counted)
    return len(counted) * batch / spent


def _waited(steps: list[dict[str, Any]]) -> float:
    waited, worked = (sum(step[name] for step in steps[WARM_UP:]) for name in ("waited_s", "worked_s"))
    return float(waited / (waited + worked))


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("benchmarks/train.py", description=(__doc__ or "").split(":")[0])
    add = parser.add_argument
    add("--recipe", required=True)
    add("--shards", required=True, metavar="URI")
    add("--split", default="train")
    add("--steps", type=int, default=20, help="at least so many of each stage")
    several = functools.partial(add, nargs="*", action="extend", default=[])
    several("--extra-shards", metavar="URI")
    several("--set", metavar="FIELD=VALUE")
    return parser


if __name__ == "__main__":
    run(main, parser())
