"""The training loop of a Ray Train worker: the remaining stages, from the last checkpoint."""

import os
from collections.abc import Iterator

import ray.train
import ray.train.torch
import torch

from ray_jobs.training import ingest
from ray_jobs.training.job import Job, last_checkpoint, num_completed_steps
from ray_jobs.training.log import TrainLog, epoch_summary
from ray_jobs.training.profiling import profile_run
from ray_jobs.training.selection import restore_best, save_checkpoint, validate
from ray_jobs.training.tracking import TrackerError, open_trackers
from stbir.data.batch import Batch
from stbir.data.sampling import samples_per_epoch
from stbir.model import checkpoint
from stbir.training.batch_norm import estimate_batch_norm
from stbir.training.class_head import start_class_head
from stbir.training.loop import DivergedError, Metrics, train
from stbir.training.stages import StageRun, TrainableModel, start_stage

# Steps between checks for preemption. A check synchronises all workers, which takes a few milliseconds.
PREEMPTION_CHECK_STEPS = 4


def train_loop_per_worker(job: Job) -> str | None:
    """Train the remaining stages.

    Returns an error message if training diverged or a tracker cannot be set up, because a retry would fail
    again. Before a preemption of any node, saves a checkpoint and returns None with steps remaining.
    """
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // ray.train.get_context().get_local_world_size()))
    else:
        torch.backends.cudnn.benchmark = True  # the input shapes of training are constant
    torch.manual_seed(job.recipe.seed)
    is_first = ray.train.get_context().get_world_rank() == 0
    try:
        with (
            profile_run(job.profiler if is_first else None, job.out) as on_step,
            open_trackers(job if is_first else None) as track,
        ):
            log = TrainLog(job, num_completed_steps(job.out), on_step, track) if is_first else None
            return _train_stages(job, device, log)
    except TrackerError as error:
        return str(error)


def _train_stages(job: Job, device: torch.device, log: TrainLog | None) -> str | None:
    last, completed = last_checkpoint(job.out).uri, num_completed_steps(job.out)
    model = TrainableModel(checkpoint.load(last), len(job.classes))
    state = checkpoint.read_training(last)
    model.load_class_weight(state)
    model.to(device)
    if log and job.validation and not completed:  # what the first stage must not fall below
        job.lock.check()
        checkpoint.add_details(job.out, {"validation": validate(job, model, "start", 0)})
    batches = ingest.iter_batches(ray.train.get_dataset_shard("train"))
    offset = 0
    for index, (stage, num_steps) in enumerate(zip(job.recipe.stages, job.steps, strict=True)):
        if completed < offset + num_steps:
            is_resumed = state and state["stage"] == stage.name and state["step"] < num_steps
            if not is_resumed and (scores := restore_best(job, model, offset, device)) and log:
                job.progress.put(scores | {"restored for": stage.name})
            run = start_stage(stage, job.recipe, model, num_steps, state if is_resumed else None)
            start_class_head(run, job.recipe, job.photos, device)
            stage_batches = require_order(batches, index, range(run.step, num_steps))
            try:
                is_preempted = _train_stage(job, run, stage_batches, offset, device, log)
            except DivergedError as error:
                return str(error)
            if is_preempted:
                return None
        offset += num_steps
    return None


def require_order(batches: Iterator[Batch], stage: int, steps: range) -> Iterator[Batch]:
    """Yield the batches of the given steps of a stage. Raises RuntimeError if one is missing or swapped.

    Otherwise this worker would train on other samples than the rest of the workers, without an error.
    """
    for step in steps:
        batch = next(batches, None)
        position = None if batch is None else (batch.stage, batch.number)
        if batch is None or position != (stage, step):
            raise RuntimeError(f"training data: expected stage {stage}, step {step}, got {position}")
        yield batch


def _train_stage(
    job: Job,
    run: StageRun,
    batches: Iterator[Batch],
    offset: int,
    device: torch.device,
    log: TrainLog | None,
) -> bool:
    """Train one stage; validate, save and report after each epoch. `offset`: steps of earlier stages.

    Returns whether the stage was interrupted, with a checkpoint, because a node is preempted.
    """
    steps_per_epoch = samples_per_epoch(job.photos, run.stage) / job.recipe.batch_size  # not an integer
    epoch: list[Metrics] = []
    for metrics in train(run, job.recipe, job.photos, batches, device):
        epoch.append(metrics)
        if log:
            log.add_step(run, offset, metrics)
        ends_epoch = int(run.step / steps_per_epoch) > int((run.step - 1) / steps_per_epoch)
        ends_epoch = ends_epoch or run.step == run.num_steps
        preempted = run.step % PREEMPTION_CHECK_STEPS == 0 and ray.train.get_preemption_info() is not None
        is_due = job.checkpoint_interval and run.step % job.checkpoint_interval == 0
        scores = None
        if ends_epoch:
            estimate_batch_norm(run, job.recipe, job.photos, device)
            scores = validate(job, run.model, run.stage.name, run.step / steps_per_epoch) if log else None
        if log and (ends_epoch or preempted or is_due):
            log.write(offset + run.step)
            save_checkpoint(job, run.model.retriever, offset + run.step, run.state(), scores)
        if ends_epoch:
            summary = epoch_summary(run, epoch, steps_per_epoch, job.recipe.batch_size)
            if log:
                log.write_validation(offset + run.step, scores)
                job.progress.put(summary | {"validation": scores})
            ray.train.report(summary)
            epoch = []
        if preempted:
            return True
    return False
