"""The DataConfig that distributes the training plan to any number of workers. Imports no model library,
because Ray Train loads it in a new process each time workers start."""

from typing import Any

from ray.data import DataIterator, Dataset, ExecutionOptions
from ray.train import DataConfig

from ray_jobs.cluster import placement
from ray_jobs.training import ingest
from ray_jobs.training.job import Job, num_completed_steps


class PlanDataConfig(DataConfig):  # type: ignore[misc]  # Ray has no types here
    """Distributes the remaining steps of the plan to the current number of workers.

    Ray Train calls `configure` whenever workers (re)start, so they continue from the last checkpoint.
    """

    def __init__(self, job: Job) -> None:
        options = ExecutionOptions(
            preserve_order=True,
            resource_limits=ingest.resource_limits(job.photos, job.recipe, job.gpu),
            label_selector=placement.label_selector("data"),
        )
        super().__init__(execution_options=options, enable_shard_locality=False)
        self._job = job

    def configure(
        self, datasets: dict[str, Dataset], world_size: int, *args: Any, **kwargs: Any
    ) -> list[dict[str, DataIterator]]:
        """One iterator per worker for each name in `datasets`."""
        job = self._job
        dataset = ingest.build_dataset(job.photos, job.recipe, self.completed_steps(), world_size, job.gpu)
        iterators: list[dict[str, DataIterator]] = super().configure(
            dict.fromkeys(datasets, dataset), world_size, *args, **kwargs
        )
        return iterators

    def completed_steps(self) -> int:
        """The number of steps that the last checkpoint contains."""
        return num_completed_steps(self._job.out)
