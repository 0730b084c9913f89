"""Recipes x seeds x folds as Ray tasks: one table of means, deviations and paired differences."""

import argparse
import json
import logging
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayTaskError

from ray_jobs.cli import Failed
from ray_jobs.cluster import placement, requirements
from ray_jobs.cluster.checks import demand
from ray_jobs.cluster.connection import connect
from ray_jobs.recipes import recipe
from ray_jobs.recipes.override import override
from ray_jobs.training.job import ENVIRONMENT
from ray_jobs.training.trial import Trial, run_trial
from stbir.data.shards import open_shards
from stbir.errors import InputError
from stbir.evaluation import ablation
from stbir.evaluation.comparison import compare
from stbir.storage.folder import Folder
from stbir.storage.manifest import refuse_other
from stbir.training.loop import DivergedError

log = logging.getLogger(__name__)


def ablate(args: argparse.Namespace) -> dict[str, Any]:
    """Run the trials that have no result yet, then compare all."""
    if args.cpus < 1:
        raise InputError(f"--cpus: {args.cpus} is less than 1")
    trials, out = planned(args), Folder(args.out)
    refuse_other(out, "ablation")
    demand(requirements.place(out))
    results: dict[str, dict[str, Any] | None] = {trial.name: _kept(out, trial) for trial in trials}
    left = [trial for trial in trials if results[trial.name] is None]
    log.info("%d trials, %d of them done", len(trials), len(trials) - len(left))
    connect()
    if left:
        placement.demand_room("--cpus: a trial", args.cpus, args.wait, together=args.cpus)
    diverged = "; ".join(_try(left, args.cpus, out, results))
    found = [kept for trial in trials if (kept := results[trial.name]) is not None]
    if not found:
        raise Failed(diverged, {"trials": 0})
    comparison = compare(found)
    facts = {"shards": args.shards, "folds": list(trials[0].folds), "set": args.set}
    ablation.write(args.out, comparison, found, trials[0].data[0], **facts)
    print(ablation.table(comparison))
    summary = {"ablation": args.out, "trials": len(found), **comparison.as_dict()}
    if diverged:
        raise Failed(f"the table is without these: {diverged}", summary)
    return summary


def planned(args: argparse.Namespace) -> list[Trial]:
    """Every trial of the command. Raises InputError for unknown recipes, fields and folds."""
    shards = open_shards(args.shards)
    there = sorted(set(shards.index["split"].to_pylist()))
    folds = args.folds or [name for name in there if name.startswith("fold")]
    if len(folds) < 2:
        raise InputError(f"--folds: {', '.join(folds) or 'none'}; make some with prepare_shards.py --folds 3")
    for fold in folds:
        shards.split(fold)
    every = (shards, *map(open_shards, args.aux_shards))
    uris = tuple(each.folder.uri for each in every)
    data = tuple(each.manifest.digest for each in every)
    return [
        Trial(override(recipe(name), [*args.set, f"seed={seed}"]), uris, data, tuple(folds), fold)
        for seed in dict.fromkeys(args.seeds or [0])
        for fold in folds
        for name in dict.fromkeys(args.recipes)
    ]


def _file(trial: Trial) -> str:
    return f"trials/{trial.name}.json"


def _kept(out: Folder, trial: Trial) -> dict[str, Any] | None:
    """What the trial gave before. Raises InputError where that was another one of the same name."""
    if not out.exists(_file(trial)):
        return None
    kept: dict[str, Any] = json.loads(out.read(_file(trial)))
    if kept.get("key") != trial.key:
        raise InputError(
            f"--out {out.uri}: {_file(trial)} is of another --set, --shards or recipe; choose another --out"
        )
    return kept


def _try(trials: list[Trial], cpus: int, out: Folder, results: dict[str, dict[str, Any] | None]) -> list[str]:
    """Run trials, keep what each gives in `out` and `results`, and return what those say that diverged."""
    diverged = []
    for trial, result in _ran(trials, cpus):
        if isinstance(result, DivergedError):
            diverged.append(f"{trial.name}: {result}")
            continue
        out.write(_file(trial), json.dumps({**result, "key": trial.key}, indent=2).encode())
        results[trial.name] = result
        log.info("%s: Acc@1 %s in %d s", trial.name, _short(result), result["seconds"])
    return sorted(diverged)


def _ran(trials: list[Trial], cpus: int) -> Iterator[tuple[Trial, dict[str, Any] | DivergedError]]:
    """Each trial with its result, as they end; each has a GPU of its own where the cluster has some."""
    gpus = min(1, placement.amount("GPU", "accelerator"))
    environment = {"env_vars": ENVIRONMENT}
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=2, runtime_env=environment)(run_trial)
    running = {task.remote(trial): trial for trial in trials}
    while running:
        [done], _ = ray.wait(list(running), num_returns=1)
        yield running.pop(done), _result(done)


def _result(done: ray.ObjectRef[dict[str, Any]]) -> dict[str, Any] | DivergedError:
    try:
        return ray.get(done)  # type: ignore[no-any-return]
    except RayTaskError as error:
        if not isinstance(error.cause, DivergedError):
            raise
        return error.cause  # the other trials go on


def _short(result: dict[str, Any]) -> str:
    figures = {kind: summary["acc@1"] for kind, summary in result["results"].items()}
    return ", ".join(f"{kind} {value:.1f}" for kind, value in figures.items() if value is not None)
