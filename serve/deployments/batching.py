"""Dynamic batching: items that arrive while a batch is encoded form the next one, off the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from serve.deadline import Deadline
from serve.deployments.coalescing import complete
from serve.messages import Vector
from serve.metrics import count_backend_fallback
from serve.settings import Batching
from stbir.config import Modality
from stbir.config.choices import Backend
from stbir.embedding.embed import encode, stack_pixels
from stbir.model import checkpoint
from stbir.model.backend import TORCH, BackendInUse, use_backend
from stbir.model.encoders import Encoder

Collate = Callable[[Sequence[Any]], Tensor]


def default_device() -> torch.device:
    """The GPU that Ray assigned to this process, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, eq=False)
class LoadedEncoder:
    """An encoder in eval mode, the function that builds its input from a batch of items, and its backend."""

    encoder: nn.Module
    collate: Collate
    backend: BackendInUse = TORCH

    def encode(self, items: Sequence[Any]) -> list[Vector]:
        """The vectors of a batch, each (D,)."""
        return list(encode(self.encoder, self.collate(items)))


@dataclass(frozen=True)
class EncoderLoader:
    """Loads encoders of checkpoints onto this replica's device. `cache`: a local folder for exported ones."""

    backend: Backend
    cache: Path | None = None

    def load_sketch(self, checkpoint_uri: str) -> LoadedEncoder:
        """The sketch encoder, ready for use."""
        encoder = checkpoint.load(checkpoint_uri, part="sketch")
        size = encoder.preprocess.size
        return self._prepare(encoder, "sketch", stack_pixels, np.zeros((1, size, size), np.uint8))

    def load_text(self, checkpoint_uri: str) -> LoadedEncoder:
        """The text encoder, ready for use."""
        encoder = checkpoint.load(checkpoint_uri, part="text")
        return self._prepare(encoder, "text", encoder.tokenize, "")

    def _prepare(self, encoder: Encoder, modality: Modality, collate: Collate, sample: Any) -> LoadedEncoder:
        in_use = use_backend(encoder.to(default_device()).eval(), modality, self.backend, self.cache)
        if in_use.failure:
            count_backend_fallback(modality)
        loaded = LoadedEncoder(encoder, collate, in_use)
        loaded.encode([sample])  # the first pass is slow
        return loaded


@dataclass(frozen=True, eq=False)
class PendingItem:
    """A queued item: its encoder, its deadline, and the future of its vector."""

    encoder: LoadedEncoder
    item: Any
    deadline: Deadline
    vector: asyncio.Future[Vector]

    def fail_if_expired(self) -> None:
        """Fail the vector if the deadline has passed."""
        if error := self.deadline.error():
            complete(self.vector, error)


class BatchedEncoder:
    """Encodes single items in batches; calls `on_batch` with the size of each batch.

    A batch starts as soon as the previous one ends, unless `batching` sets a wait. One thread computes, so
    that the event loop can answer health checks.
    """

    def __init__(self, batching: Batching, on_batch: Callable[[int], None] = lambda size: None) -> None:
        self._batching, self._on_batch = batching, on_batch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._queue: deque[PendingItem] = deque()
        self._tasks = set[asyncio.Task[None]]()

    async def __call__(self, encoder: LoadedEncoder, item: Any, deadline: Deadline) -> Vector:
        """The unit vector (D,) of one item. Raises DeadlineExceededError if its batch starts too late."""
        pending = PendingItem(encoder, item, deadline, asyncio.get_running_loop().create_future())
        self._queue.append(pending)
        self._start_batch()
        return await pending.vector

    def _start_batch(self) -> None:
        if self._queue and len(self._tasks) < self._batching.max_concurrent_batches:
            task = asyncio.get_running_loop().create_task(self._run_batch())
            self._tasks.add(task)
            task.add_done_callback(self._end_batch)

    def _end_batch(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._start_batch()

    async def _run_batch(self) -> None:
        max_size = self._batching.max_batch_size
        if len(self._queue) < max_size and self._batching.batch_wait_timeout_s:
            await asyncio.sleep(self._batching.batch_wait_timeout_s)
        active: list[PendingItem] = []
        while self._queue and len(active) < max_size:
            pending = self._queue.popleft()
            pending.fail_if_expired()
            if not pending.vector.done():  # neither expired nor cancelled
                active.append(pending)
        # One encoder, except during a rollout.
        for encoder in dict.fromkeys(pending.encoder for pending in active):
            await self._encode(encoder, [pending for pending in active if pending.encoder is encoder])

    async def _encode(self, encoder: LoadedEncoder, batch: list[PendingItem]) -> None:
        self._on_batch(len(batch))
        items, loop = [pending.item for pending in batch], asyncio.get_running_loop()
        results: Sequence[Any]
        try:
            results = await loop.run_in_executor(self._thread, encoder.encode, items)
        except Exception as error:  # raised to each caller
            results = [error] * len(batch)
        for pending, result in zip(batch, results, strict=True):
            complete(pending.vector, result)
