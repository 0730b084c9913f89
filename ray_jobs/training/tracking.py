"""Experiment tracking: the log of a run in Weights & Biases and MLflow, set up by Ray's integrations.

Their own environment variables turn them on. A resumed training run continues the run of the tracker, whose
id is in `OUT/tracking.json`.
"""

import importlib.util
import json
import logging
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from ray_jobs.training.job import Job, num_completed_steps
from stbir.errors import InputError
from stbir.storage.folder import Folder

log = logging.getLogger(__name__)
TRACKING_FILE = "tracking.json"
MLFLOW_EXPERIMENT = "stbir"  # unless MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID names another
# In the name of a metric. MLflow's file store makes folders of `/`, and `loss` is no folder of `loss/nce`.
INVALID_IN_MLFLOW = re.compile(r"[^\w\-. ]")
# W&B is turned on by any variable with this prefix, MLflow by this variable.
SWITCHES = {"wandb": "WANDB_", "mlflow": "MLFLOW_TRACKING_URI"}
Track = Callable[[int, Mapping[str, float]], None]  # step, values
Close = Callable[[], object]


class TrackerError(RuntimeError):
    """A tracker cannot be set up; the message names it and the remedy."""


def tracking_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of the trackers that are turned on, for the workers.

    W&B is turned on by any WANDB_ variable, MLflow by MLFLOW_TRACKING_URI. Raises InputError if its package
    is not installed.
    """
    found: dict[str, str] = {}
    for package in SWITCHES:
        names = _switches(package, environment)
        if names and importlib.util.find_spec(package) is None:
            raise InputError(
                f"{names[0]} is set, but {package} is not installed: pip install {package}, or unset it"
            )
        if names:
            prefix = f"{package.upper()}_"
            found |= {name: value for name, value in environment.items() if name.startswith(prefix)}
    return found


def _switches(package: str, environment: Mapping[str, str]) -> list[str]:
    return [name for name in environment if name.startswith(SWITCHES[package])]


@contextmanager
def open_trackers(job: Job | None) -> Iterator[Track]:
    """Yield a function that logs the values of a step to the trackers of `job`; None has none.

    Raises TrackerError if one cannot be set up. An error later turns that tracker off, with a warning.
    """
    if job is None or not job.tracking:
        yield lambda step, values: None
        return
    os.environ.update(job.tracking)
    with ExitStack() as stack:
        tracks = _start(job, stack)

        def track(step: int, values: Mapping[str, float]) -> None:
            for name, log_values in list(tracks.items()):
                try:
                    log_values(step, values)
                except Exception as error:  # training is worth more than its tracker
                    del tracks[name]
                    warning = f"{name} is off from step {step} on: {error}"
                    log.warning(warning)
                    job.progress.put({"warning": warning})

        yield track


def _start(job: Job, stack: ExitStack) -> dict[str, Track]:
    """Start or continue a run of each tracker; `stack` ends them."""
    ids = _read_ids(job)
    tracks: dict[str, Track] = {}
    for name, start in {"wandb": _wandb, "mlflow": _mlflow}.items():
        if variables := _switches(name, job.tracking):
            try:
                tracks[name], ids[name], close = start(job, ids.get(name))
            except Exception as error:
                reason = " ".join(str(error).split())
                raise TrackerError(f"{name}: {reason}; or unset {', '.join(variables)}") from error
            stack.callback(close)
    Folder(job.out).write(TRACKING_FILE, json.dumps(ids).encode())
    return tracks


def _read_ids(job: Job) -> dict[str, str]:
    """The runs of the trackers by name; none for a training run that starts at step 0."""
    folder = Folder(job.out)
    if num_completed_steps(job.out) == 0 or not folder.exists(TRACKING_FILE):
        return {}
    ids: dict[str, str] = json.loads(folder.read(TRACKING_FILE))
    return ids


def _wandb(job: Job, run_id: str | None) -> tuple[Track, str, Close]:
    from ray.air.integrations.wandb import setup_wandb

    run_id = run_id or uuid.uuid4().hex
    run = setup_wandb(_facts(job), trial_id=run_id, trial_name=job.recipe.name)
    return lambda step, values: run.log(dict(values), step=step), run_id, run.finish


def _mlflow(job: Job, run_id: str | None) -> tuple[Track, str, Close]:
    from ray.air.integrations.mlflow import setup_mlflow

    if run_id:
        os.environ["MLFLOW_RUN_ID"] = run_id  # `mlflow.start_run` continues this run
    mlflow = setup_mlflow(
        _facts(job),
        tracking_uri=os.environ["MLFLOW_TRACKING_URI"],
        experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", MLFLOW_EXPERIMENT),
        run_name=job.recipe.name,
        create_experiment_if_not_exists=True,
    )

    def track(step: int, values: Mapping[str, float]) -> None:
        mlflow.log_metrics({INVALID_IN_MLFLOW.sub("_", name): v for name, v in values.items()}, step=step)

    return track, mlflow.active_run().info.run_id, mlflow.end_run


def _facts(job: Job) -> dict[str, Any]:
    """The parameters of the run; the whole recipe is in the checkpoint."""
    recipe = job.recipe
    facts = {"recipe": recipe.name, "batch_size": recipe.batch_size, "seed": recipe.seed}
    return facts | {"photos": len(job.photos), "steps": sum(job.steps), "out": job.out}
