"""The ablate command: runs trials as Ray tasks, keeps their results in OUT/trials, and compares them."""

import argparse
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import ray
from ray.exceptions import RayTaskError

from ray_jobs.cli import check_minimum
from ray_jobs.cluster import placement, requirements
from ray_jobs.cluster.checks import enforce
from ray_jobs.cluster.connection import connect
from ray_jobs.recipes import recipe
from ray_jobs.recipes.override import override
from ray_jobs.training.job import WORKER_ENVIRONMENT
from ray_jobs.training.trial import Trial, run_trial
from stbir.config import ModelConfig
from stbir.data.shards import open_shards
from stbir.errors import InputError, JobFailedError
from stbir.evaluation import ablation
from stbir.evaluation.comparison import compare
from stbir.model.builder import build_retriever
from stbir.storage.folder import Folder
from stbir.storage.lock import Lock, artifact_lock
from stbir.training.loop import DivergedError
from stbir.training.sample_checks import require_strokes

log = logging.getLogger(__name__)
Result = dict[str, Any]


def ablate(args: argparse.Namespace) -> dict[str, Any]:
    """Run the trials without a stored result, then compare all. Raises JobFailedError if trials diverged."""
    check_minimum(args, 1, "cpus")
    trials, out = plan(args), Folder(args.out)
    enforce(requirements.storage(out))
    with artifact_lock(out, "ablation") as lock:
        return _run(args, trials, out, lock)


def _run(args: argparse.Namespace, trials: list[Trial], out: Folder, lock: Lock) -> dict[str, Any]:
    stored = {trial.name: _read_result(out, trial) for trial in trials}
    pending = [trial for trial in trials if stored[trial.name] is None]
    log.info("%d trials, %d of them done", len(trials), len(trials) - len(pending))
    _check_models(pending)
    connect()
    if pending:
        placement.require_resources(
            "--cpus: a trial", args.cpus, args.resource_timeout, bundle_cpus=args.cpus
        )
    completed, diverged = _run_trials(pending, args.cpus, out)
    stored |= completed
    results = [result for trial in trials if (result := stored[trial.name]) is not None]
    if not results:
        raise JobFailedError(diverged, {"trials": 0})
    comparison = compare(results)
    date = datetime.now(UTC).date().isoformat()
    facts = {"date": date, "shards": args.shards, "folds": list(trials[0].folds), "set": args.set}
    lock.check()
    ablation.write(args.out, comparison, results, trials[0].data[0], **facts)
    print(ablation.table(comparison))
    summary = {"ablation": args.out, "trials": len(results), **comparison.as_dict()}
    if diverged:
        raise JobFailedError(f"the table lacks these trials: {diverged}", summary)
    return summary


def _check_models(trials: list[Trial]) -> None:
    """Build each model of the trials once, before Ray starts: its weights may be unusable."""
    checked: list[ModelConfig] = []
    for model in (trial.recipe.model for trial in trials):
        if model not in checked:
            build_retriever(model)
            checked.append(model)


def plan(args: argparse.Namespace) -> list[Trial]:
    """All trials of the command. Raises InputError for unknown recipes, fields and folds."""
    shards = open_shards(args.shards)
    splits = sorted(set(shards.index["split"].to_pylist()))
    folds = args.folds or [name for name in splits if name.startswith("fold")]
    if len(folds) < 2:
        raise InputError(f"--folds: {', '.join(folds) or 'none'}; make some with prepare_shards.py --folds 3")
    for fold in folds:
        shards.select_split(fold)
    sources = (shards, *map(open_shards, args.aux_shards))
    uris = tuple(source.folder.uri for source in sources)
    digests = tuple(source.manifest.digest for source in sources)
    trials = [
        Trial(override(recipe(name), [*args.set, f"seed={seed}"]), uris, digests, tuple(folds), fold)
        for seed in dict.fromkeys(args.seeds or [0])
        for fold in folds
        for name in dict.fromkeys(args.recipes)
    ]
    for trial in trials:
        require_strokes(trial.recipe, [source.manifest.counts for source in sources])
    return trials


def _file_name(trial: Trial) -> str:
    return f"trials/{trial.name}.json"


def _read_result(out: Folder, trial: Trial) -> Result | None:
    """The stored result of a trial, if there is one. Raises InputError if its settings differ."""
    if not out.exists(_file_name(trial)):
        return None
    result: Result = json.loads(out.read(_file_name(trial)))
    if result.get("key") != trial.key:
        raise InputError(
            f"--out {out.uri}: {_file_name(trial)} was made with other options; choose another --out"
        )
    return result


def _run_trials(trials: list[Trial], cpus: int, out: Folder) -> tuple[dict[str, Result], str]:
    """Run trials and store each result in `out`. Returns results by trial, and the errors of the diverged."""
    results, diverged = {}, []
    for trial, result in _completed(trials, cpus):
        if isinstance(result, DivergedError):
            diverged.append(f"{trial.name}: {result}")
            continue
        out.write(_file_name(trial), json.dumps({**result, "key": trial.key}, indent=2).encode())
        results[trial.name] = result
        log.info("%s: Acc@1 %s in %d s", trial.name, _accuracies(result), result["seconds"])
    return results, "; ".join(sorted(diverged))


def _completed(trials: list[Trial], cpus: int) -> Iterator[tuple[Trial, Result | DivergedError]]:
    """Each trial with its result, in order of completion. Each has its own GPU if the cluster has GPUs."""
    gpus = min(1, placement.total_resource("GPU", "accelerator"))
    environment = {"env_vars": WORKER_ENVIRONMENT}
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=2, runtime_env=environment)(run_trial)
    running = {task.remote(trial): trial for trial in trials}
    while running:
        [finished], _ = ray.wait(list(running), num_returns=1)
        yield running.pop(finished), _result(finished)


def _result(task: ray.ObjectRef[Result]) -> Result | DivergedError:
    try:
        return ray.get(task)  # type: ignore[no-any-return]
    except RayTaskError as error:
        if not isinstance(error.cause, DivergedError):
            raise
        return error.cause  # the other trials continue


def _accuracies(result: Result) -> str:
    values = {kind: summary["acc@1"] for kind, summary in result["results"].items()}
    return ", ".join(f"{kind} {value:.1f}" for kind, value in values.items() if value is not None)
