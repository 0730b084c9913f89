"""A training run as Ray Train carries it out: where its workers go, how many, and what it survives."""

import time

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from ray_jobs.cli import Failed
from ray_jobs.cluster import placement
from ray_jobs.training import ingest
from ray_jobs.training.data_config import Dealt
from ray_jobs.training.job import ENVIRONMENT, Job, steps_done

RAY = ".ray"  # what Ray Train keeps of a run while it lasts; nothing is resumed from it
EACH = {"CPU": 1}  # of a worker, beside its GPU
RESIZE_S = 30.0  # how often an elastic run looks whether more workers could join


def fit(job: Job, workers: tuple[int, int], max_failures: int) -> None:
    """Train until all steps are done. Raises Failed where the run stops before.

    A run that leaves a node which is about to be taken away begins anew on the others.
    """
    while steps_done(job.out) < sum(job.steps):
        _finish(_trainer(job, workers, max_failures))


def _finish(trainer: TorchTrainer) -> None:
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        reason = str(error).strip().splitlines()[-1]
        raise Failed(f"{reason}; the same command goes on from the last good checkpoint", {}) from error
    if result.return_value:
        raise Failed(str(result.return_value), {})


def _trainer(job: Job, workers: tuple[int, int], max_failures: int) -> TorchTrainer:
    def on_worker() -> str | None:
        """Ray Train's controller, which only hands this on, is spared the import: seconds a run."""
        from ray_jobs.training.worker import work

        return work(job)

    ingest.keep_order()
    least, most = workers
    # Ray 2.60 counts how many workers of an elastic run fit, and looks at no label: GPUs tell it, CPUs not.
    with_accelerator = job.gpu or (least == most and placement.has("accelerator"))
    return TorchTrainer(
        on_worker,
        datasets={"train": None},  # its name; `Dealt` says what it is
        dataset_config=Dealt(job),
        scaling_config=ScalingConfig(
            num_workers=most if least == most else workers,
            use_gpu=job.gpu,
            resources_per_worker=EACH,
            label_selector=placement.selector("accelerator") if with_accelerator else None,
            elastic_resize_monitor_interval_s=RESIZE_S,
        ),
        run_config=RunConfig(
            name=f"ray-{time.time_ns()}",
            storage_path=f"{job.out}/{RAY}",
            worker_runtime_env={"env_vars": ENVIRONMENT},
            failure_config=FailureConfig(max_failures=max_failures, max_preemption_failures=-1),
        ),
    )
