"""What runs on each training worker: the stages that are left, from the last good checkpoint."""

import os
from collections.abc import Iterator
from typing import Any

import ray.train
import ray.train.torch
import torch

from ray_jobs.training import ingest
from ray_jobs.training.job import Job, steps_done
from ray_jobs.training.log import TrainLog, epoch_line
from ray_jobs.training.profiling import watched
from stbir.data.batch import Batch
from stbir.data.sampling import samples_an_epoch
from stbir.data.shards import open_shards
from stbir.evaluation.evaluate import evaluate
from stbir.model import checkpoint
from stbir.model.retriever import Retriever
from stbir.training.loop import DivergedError, Metrics, train
from stbir.training.stages import Learner, StageRun, start_stage

# All workers ask together whether a node is about to be taken away: a few milliseconds, so not in each step.
NOTICE_EVERY = 4  # steps


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

    Returns what stopped it where going on makes no sense. A worker whose node, or another's, is about to be
    taken away saves and returns nothing, with steps left.
    """
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // ray.train.get_context().get_local_world_size()))
    torch.manual_seed(job.recipe.seed)
    first = ray.train.get_context().get_world_rank() == 0
    with watched(job.profile if first else None, job.out) as tick:
        return _stages(job, device, TrainLog(job, steps_done(job.out), tick) if first else None)


def _stages(job: Job, device: torch.device, log: TrainLog | None) -> str | None:
    done = steps_done(job.out)
    learner = Learner(checkpoint.load(job.out), len(job.classes))
    state = checkpoint.read_training(job.out)
    if state is not None and learner.classes_CD is not None:
        learner.classes_CD.data.copy_(state["classes"])
    learner.to(device)
    shares = ingest.batches(ray.train.get_dataset_shard("train"))
    before = 0
    for stage, steps in zip(job.recipe.stages, job.steps, strict=True):
        if done < before + steps:
            under_way = state if state and state["stage"] == stage.name and state["step"] < steps else None
            stage_run = start_stage(stage, job.recipe, learner, steps, under_way)
            own = in_order(shares, job.recipe.stages.index(stage), range(stage_run.step, steps))
            try:
                leaving = _train_stage(job, stage_run, own, before, device, log)
            except DivergedError as error:
                return str(error)  # not raised: another try would end in the same step
            if leaving:
                return None
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


def _train_stage(
    job: Job,
    run: StageRun,
    shares: Iterator[Batch],
    before: int,
    device: torch.device,
    log: TrainLog | None,
) -> bool:
    """One stage; after every epoch it is checked on the validation split, saved and reported.

    Returns whether it was left, saved, because a node is about to be taken away.
    """
    an_epoch = samples_an_epoch(job.photos, run.stage) / job.recipe.batch_size  # steps, a fraction
    seen: list[Metrics] = []
    for metrics in train(run, job.recipe, job.photos, shares, device):
        seen.append(metrics)
        if log:
            log.step(run, before, metrics)
        ended = run.step == run.steps or int(run.step / an_epoch) > int((run.step - 1) / an_epoch)
        leaving = run.step % NOTICE_EVERY == 0 and ray.train.get_preemption_info() is not None
        if log and (ended or leaving or (job.save_every and run.step % job.save_every == 0)):
            log.save(before + run.step)
            save(job, run.learner.retriever, before + run.step, run.state())
        if ended:
            line = epoch_line(run, seen, an_epoch, job.recipe.batch_size)
            if log:
                accuracies = _validate(job, run.learner)
                log.validated(before + run.step, accuracies)
                job.progress.put(line | {f"val {kind} acc@1": value for kind, value in accuracies.items()})
            ray.train.report(line)
            seen = []
        if leaving:
            return True
    return False


def _validate(job: Job, learner: Learner) -> dict[str, float]:
    if job.validate is None:
        return {}
    shards = open_shards(job.shards)
    results = evaluate(learner.retriever, shards.rows(job.validate)).results
    return {kind: found for kind, summary in results.items() if (found := summary["acc@1"]) is not None}
