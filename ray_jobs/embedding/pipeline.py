"""A catalogue → rows of the gallery, in its order and in bounded memory: a window over tasks and towers."""

import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import GetTimeoutError

from ray_jobs.cli import Failed
from ray_jobs.cluster import placement, requirements
from ray_jobs.cluster.checks import demand
from ray_jobs.embedding.decode import Decoded, decode_part
from ray_jobs.embedding.encoder_actor import Encoded, PhotoTower
from stbir.catalogue.photo import Catalogue, Part
from stbir.gallery.existing_rows import Known

# Parts that a tower has before it beside those that the CPUs work on.
_READY = 2
_LOOK_S = 5.0  # how often the cluster is looked at
_STUCK_SECONDS = 900


@dataclass(frozen=True)
class Towers:
    """How the photos are encoded: by so many actors, with a GPU each or without. `batch`: None finds the
    best."""

    checkpoint: str
    size: int
    workers: int
    gpu: bool
    batch: int | None = None


@dataclass(frozen=True)
class Embedded:
    """What became of a part of the catalogue."""

    decoded: Decoded
    encoded: Encoded


def find_room(wanted: int | None, gpu: str, wait: float) -> tuple[int, bool]:
    """How many encoders there are to be, and whether each has a GPU: `yes`, `no`, or `auto`, where there are
    enough. A cluster has so many seconds to grow before. Raises InputError for what is missing then."""
    workers = placement.towers(wanted, gpu, wait)
    if "RAY_ADDRESS" in os.environ or gpu == "yes":
        demand(requirements.embedding(workers, gpu))
    return workers, requirements.uses_gpus(workers, gpu)


def embedded(catalogue: Catalogue, known: Known, towers: Towers) -> Iterator[Embedded]:
    """Every part of the catalogue, in its order. A task or actor that dies is run again, as Ray does."""
    actors, decoding = _start(towers), _Decoding(towers.workers)
    there = ray.put(catalogue)
    waiting: deque[tuple[Any, Any]] = deque()
    for number, (part, repeated) in enumerate(_marked(catalogue.parts())):
        decoding.look()
        while len(waiting) >= decoding.window:
            yield _result(*waiting.popleft())
        given = (there, part, repeated, known.prints_of(part.ids), towers.size)
        decoded, pixels = decoding.task.remote(*given)
        waiting.append((decoded, actors[number % len(actors)].encode.remote(pixels)))
    while waiting:
        yield _result(*waiting.popleft())


class _Decoding:
    """The task that decodes a part, where it may run now, and how many parts may be under way: what is beyond
    the CPUs makes a cluster grow, and with it the window."""

    def __init__(self, towers: int) -> None:
        self._towers, self._next = towers, 0.0
        self._task = ray.remote(num_cpus=1, num_returns=2, max_retries=-1)(decode_part)
        self.look()

    def look(self) -> None:
        """Look at the cluster, now and then."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LOOK_S
        self.window = placement.amount("CPU", "data") + _READY * self._towers
        self.task = self._task.options(label_selector=placement.selector("data"))


def _start(towers: Towers) -> list[Any]:
    actor = ray.remote(PhotoTower).options(
        num_cpus=placement.TOWER_CPUS,
        num_gpus=1 if towers.gpu else 0,
        max_restarts=-1,
        max_task_retries=-1,
        allow_out_of_order_execution=True,  # a part that is ready need not wait for one that is not
        label_selector=placement.selector("accelerator"),
        runtime_env=None if towers.gpu else _without_gpus(),
    )
    return [actor.remote(towers.checkpoint, towers.workers, towers.batch) for _ in range(towers.workers)]


def _without_gpus() -> dict[str, Any] | None:
    """For encoders that are to leave the GPUs alone, where there are some: Ray hides none from them."""
    return {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}} if ray.cluster_resources().get("GPU", 0) else None


def _marked(parts: Iterator[Part]) -> Iterator[tuple[Part, frozenset[int]]]:
    """Parts, and the places in them of ids that came before."""
    seen: set[str] = set()
    for part in parts:
        repeated = []
        for place, photo_id in enumerate(part.ids):
            if photo_id in seen:
                repeated.append(place)
            seen.add(photo_id)
        yield part, frozenset(repeated)


def _result(decoded: Any, encoded: Any) -> Embedded:
    try:
        return Embedded(*ray.get([decoded, encoded], timeout=_STUCK_SECONDS))
    except GetTimeoutError as error:
        minutes = _STUCK_SECONDS // 60
        raise Failed(
            f"nothing was embedded for {minutes} minutes: are there CPUs free, and does storage answer?", {}
        ) from error


def rows(part: Embedded, schema: pa.Schema) -> pa.Table:
    """Rows of the gallery's table."""
    decoded, vectors_BD = part.decoded, part.encoded.vectors
    vector = schema.field("embedding").type
    facts = zip(*decoded.facts, strict=True) if decoded.facts else [()] * (len(schema) - 5)
    columns = [
        pa.array(decoded.photo_ids, pa.string()),
        pa.array(decoded.categories, pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors_BD.ravel()), vector.list_size),
        pa.array(decoded.thumbnails, pa.binary()),
        pa.array(decoded.contents, pa.string()),
        *(pa.array(list(values), field.type) for values, field in zip(facts, list(schema)[5:], strict=True)),
    ]
    return pa.Table.from_arrays(columns, schema=schema)
