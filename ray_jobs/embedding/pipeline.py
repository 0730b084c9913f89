"""The pipeline of an embedding job: decode tasks and encoder actors over a bounded window of parts."""

import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import ray
from ray.exceptions import GetTimeoutError

from ray_jobs.cluster import placement, requirements
from ray_jobs.cluster.checks import enforce
from ray_jobs.embedding.encoder_actor import EncodedPart, EncoderActor
from ray_jobs.embedding.isolation import (
    PHOTO_TIMEOUT_S,
    STALL_TIMEOUT_S,
    TASK_LOSSES,
    decode_isolated,
    stalled,
)
from stbir.catalogue.photo import Catalogue
from stbir.config import Preprocess
from stbir.config.choices import Backend
from stbir.embedding.decode import DecodedPart, UnreadPart, decode_part

log = logging.getLogger(__name__)
_PREFETCH_PARTS = 2  # per encoder, in addition to the parts that are being decoded
_REFRESH_INTERVAL_S = 5.0


@dataclass(frozen=True)
class EncoderPool:
    """The encoder actors of a job. `batch_size`: None to tune it."""

    checkpoint: str
    preprocess: Preprocess
    num_workers: int
    use_gpu: bool
    batch_size: int | None = None
    backend: Backend = "auto"


@dataclass(frozen=True)
class EmbeddedPart:
    """The result for a part of the catalogue. The vectors belong to the decoded photos, in order."""

    decoded: DecodedPart
    encoded: EncodedPart


@dataclass(frozen=True)
class _PendingPart:
    """The references to the results for a part, and what is needed to decode it again."""

    args: tuple[Any, ...]  # of `decode_isolated`
    actor: Any
    decoded: Any
    encoded: Any


def allocate_encoders(num_workers: int | None, gpu: str, timeout_s: float) -> tuple[int, bool]:
    """The number of encoders, and whether each has a GPU. `gpu` is yes, no or auto (if there are enough).
    Waits for the cluster to scale up. Raises InputError for resources that are still missing."""
    num_workers = placement.num_encoders(num_workers, gpu, timeout_s)
    if "RAY_ADDRESS" in os.environ or gpu == "yes":
        enforce(requirements.embedding(num_workers, gpu))
    return num_workers, requirements.uses_gpus(num_workers, gpu)


def embed_catalogue(
    catalogue: Catalogue, parts: Iterable[DecodedPart | UnreadPart], pool: EncoderPool
) -> Iterator[EmbeddedPart]:
    """Embed the parts of a catalogue (`detect_changes`), the unread ones in order.

    Ray re-runs an actor that dies. If a decode task dies, the photos of its part are decoded one by one.
    """
    actors, scheduler = _start_actors(pool), _DecodeScheduler(pool.num_workers)
    catalogue_ref = ray.put(catalogue)
    pending: deque[_PendingPart] = deque()
    for part in parts:
        if isinstance(part, DecodedPart):
            yield EmbeddedPart(part, EncodedPart.empty())
            continue
        scheduler.refresh()
        while len(pending) >= scheduler.window:
            yield _get(pending.popleft())
        args = (catalogue_ref, part, pool.preprocess)
        decoded, pixels = scheduler.task.remote(*args, PHOTO_TIMEOUT_S)
        actor = next(actors)
        pending.append(_PendingPart(args, actor, decoded, actor.encode.remote(pixels)))
    while pending:
        yield _get(pending.popleft())


class _DecodeScheduler:
    """The decode task, and the window: the number of parts in flight. The window exceeds the CPUs, which
    makes an autoscaling cluster grow, and the window with it."""

    def __init__(self, num_encoders: int) -> None:
        self._num_encoders, self._next_refresh = num_encoders, 0.0
        self._base_task = ray.remote(num_cpus=1, num_returns=2, max_retries=0)(decode_part)
        self.refresh()

    def refresh(self) -> None:
        """Adapt to the nodes of the cluster, at most once every _REFRESH_INTERVAL_S."""
        if time.monotonic() < self._next_refresh:
            return
        self._next_refresh = time.monotonic() + _REFRESH_INTERVAL_S
        self.window = placement.total_resource("CPU", "data") + _PREFETCH_PARTS * self._num_encoders
        self.task = self._base_task.options(label_selector=placement.label_selector("data"))


def _start_actors(pool: EncoderPool) -> Iterator[Any]:
    """The actors, in turn."""
    actor = ray.remote(EncoderActor).options(
        num_cpus=placement.ENCODER_CPUS,
        num_gpus=1 if pool.use_gpu else 0,
        max_restarts=-1,
        max_task_retries=-1,
        allow_out_of_order_execution=True,  # a decoded part does not wait for an earlier one
        label_selector=placement.label_selector("accelerator"),
        runtime_env=None if pool.use_gpu else _hide_gpus(),
    )
    args = (pool.checkpoint, pool.num_workers, pool.batch_size, pool.backend)
    return cycle([actor.remote(*args) for _ in range(pool.num_workers)])


def _hide_gpus() -> dict[str, Any] | None:
    """A runtime environment without GPUs: Ray does not hide them from actors with num_gpus=0."""
    return {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}} if ray.cluster_resources().get("GPU", 0) else None


def _get(part: _PendingPart) -> EmbeddedPart:
    try:
        return EmbeddedPart(*_wait([part.decoded, part.encoded]))
    except TASK_LOSSES as error:
        log.warning("a decode task died (%s); decoding its photos one by one", type(error).__name__)
    args = (*part.args, placement.label_selector("data"))
    decoded, pixels = decode_isolated(*args)
    return EmbeddedPart(decoded, _wait(part.actor.encode.remote(ray.put(pixels))))


def _wait(references: Any) -> Any:
    try:
        return ray.get(references, timeout=STALL_TIMEOUT_S)
    except GetTimeoutError as error:
        raise stalled() from error
