"""What runs on each training worker: the stages that are left, from the last good checkpoint."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import ray.train
import ray.train.torch
import torch

from ray_jobs import feed
from ray_jobs.train_job import Job, steps_done
from stbir.data.batch import Batch
from stbir.data.plan import samples_an_epoch
from stbir.data.shards import open_shards
from stbir.data.storage import Folder
from stbir.model import checkpoint
from stbir.model.retriever import Retriever
from stbir.retrieval.evaluate import evaluate
from stbir.training.loop import DivergedError, Metrics, train
from stbir.training.stages import Learner, StageRun, start_stage


def save(job: Job, retriever: Retriever, done: int, training: dict[str, Any] | None) -> None:
    """Publish a checkpoint at --out, and drop those it makes superfluous."""
    counts = {"steps": done, "total": sum(job.steps), "photos": len(job.photos)}
    checkpoint.save(
        job.out, f"step-{done:08d}", retriever, job.recipe,
        made_from=job.data[0], counts=counts, details={"photos": job.photos.digest, "data": job.data},
        training=training,
    )  # fmt: skip
    checkpoint.prune(job.out)


def work(job: Job) -> str | None:
    """Runs on every worker: the stages that are left, each from where it stands.

    Returns what stopped it where going on makes no sense.
    """
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // ray.train.get_context().get_local_world_size()))
    torch.manual_seed(job.recipe.seed)
    done = steps_done(job.out)
    learner = Learner(checkpoint.load(job.out), len(job.classes))
    state = checkpoint.read_training(job.out)
    if state is not None and learner.classes_CD is not None:
        learner.classes_CD.data.copy_(state["classes"])
    learner.to(device)
    shares = feed.batches(ray.train.get_dataset_shard("train"))
    before = 0
    for stage, steps in zip(job.recipe.stages, job.steps, strict=True):
        if done < before + steps:
            under_way = state if state and state["stage"] == stage.name and state["step"] < steps else None
            stage_run = start_stage(stage, job.recipe, learner, steps, under_way)
            own = in_order(shares, job.recipe.stages.index(stage), range(stage_run.step, steps))
            try:
                _train_stage(job, stage_run, own, before, device)
            except DivergedError as error:
                return str(error)  # not raised: another try would end in the same step
        before += steps
    return None


def in_order(shares: Iterator[Batch], stage: int, steps: range) -> Iterator[Batch]:
    """The shares of the given steps of a stage. Raises RuntimeError where the feed gives any other:
    a swapped or missing share would train on, silently, out of step with the other workers."""
    for step in steps:
        batch = next(shares, None)
        got = None if batch is None else (batch.stage, batch.number)
        if batch is None or got != (stage, step):
            raise RuntimeError(f"the feed gave {got} where stage {stage}, step {step} is due")
        yield batch


def _train_stage(job: Job, run: StageRun, shares: Iterator[Batch], before: int, device: torch.device) -> None:
    """One stage; after every epoch it is checked on the validation split, saved and reported."""
    an_epoch = samples_an_epoch(job.photos, run.stage) / job.recipe.batch  # steps, a fraction
    first = ray.train.get_context().get_world_rank() == 0
    seen: list[Metrics] = []
    unsaved: list[Metrics] = []
    for metrics in train(run, job.recipe, job.photos, shares, device):
        seen.append(metrics)
        unsaved += [metrics] if first else []
        ended = run.step == run.steps or int(run.step / an_epoch) > int((run.step - 1) / an_epoch)
        if first and (ended or (job.save_every and run.step % job.save_every == 0)):
            _log(job.out, before + run.step, unsaved)
            save(job, run.learner.retriever, before + run.step, run.state())
            unsaved = []
        if ended:
            line = _epoch_line(run, seen, an_epoch, job.recipe.batch)
            if first:
                line |= _validate(job, run.learner)
                job.progress.put(line)
            ray.train.report(line)
            seen = []


def _log(out: str, done: int, unsaved: list[Metrics]) -> None:
    """A line of JSON for each step since the checkpoint before.

    Written before the checkpoint that it belongs to: a run that goes on from it never writes it again.
    """
    lines = "".join(json.dumps(asdict(metrics)) + "\n" for metrics in unsaved)
    Folder(out).write(f"log/step-{done:08d}.jsonl", lines.encode())


def _epoch_line(run: StageRun, seen: list[Metrics], an_epoch: float, batch: int) -> dict[str, Any]:
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


def _validate(job: Job, learner: Learner) -> dict[str, Any]:
    if job.validate is None:
        return {}
    shards = open_shards(job.shards)
    results = evaluate(learner.retriever, shards.rows(job.validate)).results
    asked = {kind: summary["acc@1"] for kind, summary in results.items() if summary["n"]}
    return {f"val {kind} acc@1": accuracy for kind, accuracy in asked.items()}
