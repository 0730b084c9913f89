"""The parameters of a training run, shared by driver, controller and workers. Imports no model library."""

from dataclasses import dataclass, field

from ray.util.queue import Queue

from ray_jobs.training.validation import Validation
from stbir.config import MODALITY_OF, Recipe
from stbir.config.choices import Select
from stbir.data.photo_index import PhotoIndex
from stbir.data.sampling import num_stage_steps
from stbir.errors import InputError
from stbir.storage.folder import Folder
from stbir.storage.lock import Lock
from stbir.storage.manifest import read_manifest

# Environment of training workers on CPUs; sizes are in bytes. OpenMP threads that spin while they wait for
# each other would take CPU time from decode tasks on the same cores. By default, glibc returns the large
# tensors of each step to the kernel and requests them again: a quarter of the time. Ray Train runs the loop
# in a thread, and a second thread's malloc arena keeps no large tensors at any threshold: one arena.
WORKER_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
}
# Limit of the object store when training on CPUs, in the largest steps of the run.
STEPS_IN_FLIGHT = 16


@dataclass(frozen=True)
class Job:
    """The parameters of a training run."""

    recipe: Recipe
    photos: PhotoIndex
    classes: list[str]
    out: str
    data_digests: list[str]  # of all shards, auxiliary ones last
    validation: Validation | None  # None: the last checkpoint is published
    progress: Queue
    lock: Lock  # of `out`, held by the driver
    select: Select = "best"  # the checkpoint to publish; "last" without validation
    init_digest: str = ""  # of the checkpoint that the encoders started from; empty without --init-from
    checkpoint_interval: int | None = None  # steps, in addition to the end of each epoch
    profiler: str | None = None  # torch or py-spy
    gpu: bool = False  # whether each worker has a GPU
    # Environment variables of W&B and MLflow, which may hold keys.
    tracking: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def steps(self) -> list[int]:
        """The number of steps of each stage."""
        return [num_stage_steps(self.photos, stage, self.recipe.batch_size) for stage in self.recipe.stages]


def last_checkpoint(out: str) -> Folder:
    """The newest checkpoint of the run, from which it resumes; `out` itself opens the published one."""
    names = Folder(out).list_files("step-*/manifest.json")
    return Folder(out).child(names[-1].split("/")[0]) if names else Folder(out)


def num_completed_steps(out: str) -> int:
    """The number of steps, over all stages, that the last checkpoint contains."""
    return read_manifest(last_checkpoint(out), "checkpoint").counts["steps"]


def step_bytes(recipe: Recipe) -> int:
    """Size of the largest decoded step: a photo (3, H, W), a sketch (1, H, W) and their views per row."""
    size = {
        "photo": 3 * recipe.model.photo.preprocess.size**2,
        "sketch": recipe.model.sketch_preprocess.size**2,
    }
    return recipe.batch_size * max(
        sum(
            size[modality] * (1 + stage.sampling.hard_negatives * (modality in stage.candidate_modalities))
            for modality in ("photo", "sketch", *(MODALITY_OF[view] for view in stage.views))
        )
        for stage in recipe.stages
    )


def worker_range(workers: str, batch_size: int) -> tuple[int, int]:
    """Parse `N` or `MIN:MAX` into minimum and maximum.

    Raises InputError for any other text, and if the batch is not divisible by a number of workers.
    """
    minimum, colon, maximum = str(workers).partition(":")
    if not (minimum.isdigit() and (maximum.isdigit() if colon else True)):
        raise InputError(f"--workers: {workers!r} is neither a number nor MIN:MAX")
    counts = range(int(minimum), int(maximum or minimum) + 1)
    if not counts:
        raise InputError(f"--workers: {workers}: MAX is less than MIN")
    for count in counts:
        if count < 1 or batch_size % count:
            raise InputError(
                f"--workers: batch_size {batch_size} is not divisible by {count}; --set batch_size=N"
            )
    return counts[0], counts[-1]
