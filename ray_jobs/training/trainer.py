"""The Ray Train trainer of a run: placement and number of workers, tolerated failures."""

import time
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from ray_jobs.cluster import placement
from ray_jobs.training import ingest
from ray_jobs.training.data_config import PlanDataConfig
from ray_jobs.training.job import WORKER_ENVIRONMENT, Job, num_completed_steps
from stbir.errors import JobFailedError
from stbir.storage.folder import Folder

RAY_FOLDER = ".ray"  # Ray Train's own state while a run lasts; resuming does not use it
WORKER_RESOURCES = {"CPU": 1}  # per worker, in addition to its GPU
RESIZE_INTERVAL_S = 30.0  # between checks whether an elastic run can add workers


class _Trainer(TorchTrainer):  # type: ignore[misc]  # untyped
    def _register_sigint_handler(self, controller: Any) -> None:
        """Keeps the handler of the command. Ray's own exits with 0 or 1, after a traceback."""


def fit(job: Job, workers: tuple[int, int], max_failures: int) -> None:
    """Train until all steps are done. Raises JobFailedError if the run stops before.

    A run that is preempted continues on the remaining nodes with a new trainer.
    """
    while num_completed_steps(job.out) < sum(job.steps):
        fit_once(_create_trainer(job, workers, max_failures))


def fit_once(trainer: TorchTrainer) -> None:
    """Run the trainer. Raises JobFailedError if it fails, or if its workers return an error."""
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        reason = str(error).strip().splitlines()[-1]
        remedy = "run the same command again to resume from the last checkpoint"
        raise JobFailedError(f"{reason}; {remedy}", {}) from error
    if result.return_value:
        raise JobFailedError(str(result.return_value), {})


def _create_trainer(job: Job, workers: tuple[int, int], max_failures: int) -> TorchTrainer:
    def train_loop() -> str | None:
        """Imports the loop on the worker: the import takes seconds, and the controller does not need it."""
        from ray_jobs.training.worker import train_loop_per_worker

        return train_loop_per_worker(job)

    ingest.preserve_order()
    minimum, maximum = workers
    is_elastic = minimum < maximum
    # Ray 2.60 ignores label selectors when it counts how many elastic workers fit. GPUs limit that count
    # correctly; CPUs do not, so elastic runs on CPUs have no selector.
    use_selector = job.gpu or (not is_elastic and placement.has_role("accelerator"))
    return _Trainer(
        train_loop,
        datasets={"train": None},  # only the name; `PlanDataConfig` builds the dataset
        dataset_config=PlanDataConfig(job),
        scaling_config=ScalingConfig(
            num_workers=workers if is_elastic else maximum,
            use_gpu=job.gpu,
            resources_per_worker=WORKER_RESOURCES,
            label_selector=placement.label_selector("accelerator") if use_selector else None,
            elastic_resize_monitor_interval_s=RESIZE_INTERVAL_S,
        ),
        run_config=RunConfig(
            name=f"ray-{time.time_ns()}",
            storage_path=Folder(job.out).quoted_uri_of(RAY_FOLDER),
            worker_runtime_env={"env_vars": WORKER_ENVIRONMENT},
            failure_config=FailureConfig(max_failures=max_failures, max_preemption_failures=-1),
        ),
    )
