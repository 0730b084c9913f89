"""The plan of a run dealt to its workers, however many there are. Loads no model library: Ray Train starts a
process of its own for it each time that workers start."""

from typing import Any

from ray.data import DataIterator, Dataset, ExecutionOptions
from ray.train import DataConfig

from ray_jobs.cluster import placement
from ray_jobs.training import ingest
from ray_jobs.training.job import Job, steps_done


class Dealt(DataConfig):  # type: ignore[misc]  # Ray has no types here
    """Deals the rest of the plan to as many workers as there are now: asked for anew whenever they (re)start,
    so that they go on from the last good checkpoint. Ray Train's own way to learn their number."""

    def __init__(self, job: Job) -> None:
        options = ExecutionOptions(
            preserve_order=True,
            resource_limits=ingest.room(job.photos, job.recipe, job.gpu),
            label_selector=placement.selector("data"),
        )
        super().__init__(execution_options=options, enable_shard_locality=False)
        self._job = job

    def configure(
        self, datasets: dict[str, Dataset], world_size: int, *given: Any, **options: Any
    ) -> list[dict[str, DataIterator]]:
        """An iterator a worker over its shares, by the names of `datasets`."""
        job = self._job
        rest = ingest.stream(job.photos, job.recipe, self.done(), world_size, job.gpu)
        shares: list[dict[str, DataIterator]] = super().configure(
            dict.fromkeys(datasets, rest), world_size, *given, **options
        )
        return shares

    def done(self) -> int:
        """How many steps of the plan the run has behind it."""
        return steps_done(self._job.out)
