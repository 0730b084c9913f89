"""A training run as driver, controller and workers know it; no model library is loaded for it."""

from dataclasses import dataclass

from ray.util.queue import Queue

from stbir.config import Recipe
from stbir.data.photo_index import Photos
from stbir.data.sampling import steps_of
from stbir.errors import InputError
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest

# On a CPU, training shares its cores with decoding: OpenMP threads that spin while they wait for one another
# would starve it, and with it themselves. And glibc would give every step's large tensors back to the
# kernel and ask for them again: a quarter of the time. Ray Train's worker trains in a thread, and the arena
# that a second thread gets keeps no large tensor whatever the thresholds say: one arena. Sizes in bytes.
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
# Of a run's largest steps: as much lies in the object store at once, beside training on CPUs.
STEPS_IN_FLIGHT = 16


@dataclass(frozen=True)
class Job:
    """What every worker is told."""

    recipe: Recipe
    photos: Photos
    classes: list[str]
    out: str
    shards: str
    data: list[str]  # digests of all shards, its own first
    validate: str | None
    progress: Queue
    save_every: int | None = None  # steps; beside the end of each epoch
    profile: str | None = None  # a kind of `profiling`
    gpu: bool = False  # whether its workers have GPUs

    @property
    def steps(self) -> list[int]:
        """Steps of each stage."""
        return [steps_of(self.photos, stage, self.recipe.batch_size) for stage in self.recipe.stages]


def steps_done(out: str) -> int:
    """The cursor: steps over all stages that the published checkpoint has behind it."""
    return read_manifest(Folder(out), "checkpoint").counts["steps"]


def step_bytes(recipe: Recipe) -> int:
    """Bytes of one decoded step: a photo (3, H, W) and a sketch (1, H, W) a row, with drawn negatives."""
    a_row = 3 * recipe.model.photo.preprocess.size**2 + recipe.model.sketch_size**2
    return max(recipe.batch_size * (1 + stage.hard_negatives) * a_row for stage in recipe.stages)


def worker_range(given: str, batch: int) -> tuple[int, int]:
    """The numbers of workers that `N` or `MIN:MAX` allows. Raises InputError where they do not share the
    batch evenly: it is the same at any number of them."""
    least, colon, most = str(given).partition(":")
    if not (least.isdigit() and (most.isdigit() if colon else True)):
        raise InputError(f"--workers: {given!r} is neither a number nor MIN:MAX")
    numbers = range(int(least), int(most or least) + 1)
    if not numbers:
        raise InputError(f"--workers: {given}: the most is less than the least")
    for number in numbers:
        if number < 1 or batch % number:
            raise InputError(f"--workers: batch {batch} does not divide by {number}; --set batch_size=N")
    return numbers[0], numbers[-1]
