"""What a run tells of its steps: lines of JSON and TensorBoard events beside its checkpoints, and meters."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from ray_jobs.cluster.metrics import TrainMeters
from ray_jobs.training.job import Job
from ray_jobs.training.profiling import Tick
from stbir.config import Stage
from stbir.data.sampling import samples_an_epoch
from stbir.storage.folder import Folder
from stbir.training.curriculum import level
from stbir.training.events import event_file
from stbir.training.loop import Metrics
from stbir.training.stages import StageRun

LINES, EVENTS = "log", "tensorboard"


class TrainLog:
    """Kept by the first worker. Steps count once a checkpoint has them: a run that goes on redoes others."""

    def __init__(self, job: Job, done: int, tick: Tick) -> None:
        self._job, self._tick = job, tick
        self._folder = Folder(job.out)
        self._unsaved: list[tuple[Metrics, dict[str, float]]] = []
        self._meters = TrainMeters(job.recipe.name)
        for name in (*self._folder.names(f"{LINES}/*"), *self._folder.names(f"{EVENTS}/*")):
            if step_of(name) > done:  # written just before a save that never came
                self._folder.remove(name)

    def step(self, run: StageRun, before: int, metrics: Metrics) -> None:
        """Note a step, of which `before` are of earlier stages."""
        self._tick()
        noise = _noise(self._job, run.stage, run.step)
        stage = self._job.recipe.stages.index(run.stage)
        self._unsaved.append((metrics, {"stage": stage, **{f"noise/{of}": v for of, v in noise.items()}}))
        self._meters.step(before + run.step, stage, self._job.recipe.batch_size, metrics, noise)

    def save(self, done: int) -> None:
        """Write what is noted. Call it before the checkpoint of `done` steps is saved."""
        lines = "".join(json.dumps(asdict(metrics)) + "\n" for metrics, _ in self._unsaved)
        self._folder.write(f"{LINES}/step-{done:08d}.jsonl", lines.encode())
        first, batch = done - len(self._unsaved) + 1, self._job.recipe.batch_size
        steps = [(first + i, _figures(*noted, batch)) for i, noted in enumerate(self._unsaved)]
        self._folder.write(f"{EVENTS}/events.out.tfevents.{done:08d}.steps", event_file(steps))
        self._unsaved = []

    def validated(self, done: int, accuracies: dict[str, float]) -> None:
        """Write what the validation split says of the checkpoint of `done` steps: percent by kind."""
        if accuracies:
            self._meters.validated(accuracies)
            figures = {f"val acc@1/{query}": percent for query, percent in accuracies.items()}
            name = f"{EVENTS}/events.out.tfevents.{done:08d}.validation"
            self._folder.write(name, event_file([(done, figures)]))


def step_of(name: str) -> int:
    """The step in the name of a file of the log."""
    return int(name.replace("-", ".").split(".")[-2])


def epoch_line(run: StageRun, seen: list[Metrics], an_epoch: float, batch: int) -> dict[str, Any]:
    """What a person is told of an epoch."""
    spent = sum(m.waited_s + m.worked_s for m in seen)
    terms = {name: sum(m.terms[name] for m in seen) / len(seen) for name in seen[0].terms}
    return {
        "stage": run.stage.name,
        "epoch": round(min(run.step / an_epoch, run.stage.epochs), 2),
        "epochs": run.stage.epochs,
        "step": run.step,
        "loss": sum(m.loss for m in seen) / len(seen),
        **terms,
        "lr": seen[-1].lr,
        "samples_per_s": len(seen) * batch / spent,
        "waited": sum(m.waited_s for m in seen) / spent,
    }


def _figures(metrics: Metrics, more: dict[str, float], batch: int) -> dict[str, float]:
    spent = metrics.waited_s + metrics.worked_s
    terms = {f"loss/{name}": value for name, value in metrics.terms.items()}
    rates = {"lr": metrics.lr, "samples_per_s": batch / spent, "waited": metrics.waited_s / spent}
    return {"loss": metrics.loss, **terms, **rates, **more}


def _noise(job: Job, stage: Stage, step: int) -> dict[str, float]:
    if stage.noise is None:
        return {"probability": 0.0, "strength": 0.0}
    epoch = np.array([step * job.recipe.batch_size / samples_an_epoch(job.photos, stage)])
    [probability], [strength] = level(stage.noise, epoch)
    return {"probability": float(probability), "strength": float(strength)}
