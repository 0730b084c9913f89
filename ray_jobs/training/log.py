"""Logs of a training run: JSON lines, TensorBoard events and Prometheus metrics."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from ray_jobs.cluster.metrics import TrainMetrics
from ray_jobs.training.job import Job
from ray_jobs.training.profiling import StepCallback
from ray_jobs.training.tracking import Track
from stbir.data.sampling import samples_per_epoch
from stbir.storage.folder import Folder
from stbir.training.curriculum import noise_level
from stbir.training.events import event_file
from stbir.training.loop import Metrics
from stbir.training.stages import StageRun

LINES, EVENTS = "log", "tensorboard"


class TrainLog:
    """Log of the first worker. Steps are written together with the checkpoint that contains them."""

    def __init__(self, job: Job, num_steps: int, on_step: StepCallback, track: Track) -> None:
        self._job, self._on_step, self._track = job, on_step, track
        self._folder = Folder(job.out)
        self._unsaved: list[tuple[Metrics, dict[str, float]]] = []
        self._metrics = TrainMetrics(job.recipe.name)
        for name in (*self._folder.list_files(f"{LINES}/*"), *self._folder.list_files(f"{EVENTS}/*")):
            # A kill leaves a part of a file, or a file whose checkpoint was never saved.
            if name.endswith(".part") or step_in_name(name) > num_steps:
                self._folder.remove(name)

    def add_step(self, run: StageRun, offset: int, metrics: Metrics) -> None:
        """Add a step. `offset` is the number of steps of earlier stages."""
        self._on_step()
        scalars = _scalars(self._job, run, metrics)
        self._unsaved.append((metrics, scalars))
        self._metrics.update({"step": offset + run.step, **scalars})

    def write(self, num_steps: int) -> None:
        """Write the added steps, before the checkpoint of `num_steps` steps is saved."""
        lines = "".join(json.dumps(asdict(metrics)) + "\n" for metrics, _ in self._unsaved)
        self._folder.write(f"{LINES}/step-{num_steps:08d}.jsonl", lines.encode())
        start = num_steps - len(self._unsaved) + 1
        steps = [(start + i, scalars) for i, (_, scalars) in enumerate(self._unsaved)]
        self._folder.write(f"{EVENTS}/events.out.tfevents.{num_steps:08d}.steps", event_file(steps))
        self._unsaved = []
        for step, scalars in steps:  # here and not per step: a step that is repeated is tracked once
            self._track(step, scalars)

    def write_validation(self, num_steps: int, scores: dict[str, Any] | None) -> None:
        """Write Acc@1 by kind of query and the mean MRR after `num_steps` steps, in percent."""
        if scores:
            scalars = {f"val acc@1/{query}": percent for query, percent in scores["acc@1"].items()}
            scalars["val mrr"] = scores["mrr"]
            self._metrics.update(scalars)
            name = f"{EVENTS}/events.out.tfevents.{num_steps:08d}.validation"
            self._folder.write(name, event_file([(num_steps, scalars)]))
            self._track(num_steps, scalars)


def step_in_name(name: str) -> int:
    """The step in the name of a log file."""
    return int(name.replace("-", ".").split(".")[-2])


def epoch_summary(run: StageRun, steps: list[Metrics], steps_per_epoch: float, batch: int) -> dict[str, Any]:
    """Means over the steps of an epoch, for the progress output."""
    total_s = sum(m.waited_s + m.worked_s for m in steps)
    terms = {name: sum(m.terms[name] for m in steps) / len(steps) for name in steps[0].terms}
    return {
        "stage": run.stage.name,
        "epoch": round(min(run.step / steps_per_epoch, run.stage.epochs), 2),
        "epochs": run.stage.epochs,
        "step": run.step,
        "loss": sum(m.loss for m in steps) / len(steps),
        **terms,
        "lr": steps[-1].lr,
        "samples_per_s": len(steps) * batch / total_s,
        "waited": sum(m.waited_s for m in steps) / total_s,
    }


def _scalars(job: Job, run: StageRun, metrics: Metrics) -> dict[str, float]:
    """The values of a step as TensorBoard, Prometheus and the trackers show them."""
    total_s, batch_size = metrics.waited_s + metrics.worked_s, job.recipe.batch_size
    probability = strength = 0.0
    if run.stage.noise:
        epoch = np.array(run.step * batch_size / samples_per_epoch(job.photos, run.stage))
        probability, strength = map(float, noise_level(run.stage.noise, epoch))
    return {
        "loss": metrics.loss,
        **{f"loss/{name}": value for name, value in metrics.terms.items()},
        "lr": metrics.lr,
        "samples_per_s": batch_size / total_s,
        "waited": metrics.waited_s / total_s,
        "stage": job.recipe.stages.index(run.stage),
        "noise/probability": probability,
        "noise/strength": strength,
    }
