"""A catalogue → rows of the gallery, in its order and in bounded memory: a window over tasks and towers."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import GetTimeoutError

from ray_jobs.command import Failed
from ray_jobs.photo_feed import Decoded, decode_part
from ray_jobs.photo_tower import Encoded, PhotoTower
from stbir.data.catalogue.photo import Catalogue, Part
from stbir.retrieval.known import Known

# Less than a whole one: on a small machine the tasks that decode keep theirs.
_TOWER_CPUS = 0.5
# Parts that a tower has before it beside those that the CPUs work on.
_READY = 2
_STUCK_SECONDS = 900


@dataclass(frozen=True)
class Towers:
    """How the photos are encoded. `batch`: None finds the best; `workers`: None takes one a GPU, or one."""

    checkpoint: str
    size: int
    workers: int | None = None
    batch: int | None = None


@dataclass(frozen=True)
class Embedded:
    """What became of a part of the catalogue."""

    decoded: Decoded
    encoded: Encoded


def embedded(catalogue: Catalogue, known: Known, towers: Towers) -> Iterator[Embedded]:
    """Every part of the catalogue, in its order. A task or actor that dies is run again, as Ray does."""
    actors = _start(towers)
    decode = ray.remote(decode_part).options(num_cpus=1, num_returns=2, max_retries=-1)
    there = ray.put(catalogue)
    window = int(ray.cluster_resources().get("CPU", 1)) + _READY * len(actors)
    waiting: deque[tuple[Any, Any]] = deque()
    for number, (part, repeated) in enumerate(_marked(catalogue.parts())):
        if len(waiting) >= window:
            yield _result(*waiting.popleft())
        decoded, pixels = decode.remote(there, part, repeated, known.prints_of(part.ids), towers.size)
        waiting.append((decoded, actors[number % len(actors)].encode.remote(pixels)))
    while waiting:
        yield _result(*waiting.popleft())


def _start(towers: Towers) -> list[Any]:
    gpus = int(ray.cluster_resources().get("GPU", 0))
    workers = towers.workers or max(1, gpus)
    actor = ray.remote(PhotoTower).options(
        num_cpus=_TOWER_CPUS,
        num_gpus=1 if gpus else 0,
        max_restarts=-1,
        max_task_retries=-1,
        allow_out_of_order_execution=True,  # a part that is ready need not wait for one that is not
    )
    return [actor.remote(towers.checkpoint, workers, towers.batch) for _ in range(workers)]


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
