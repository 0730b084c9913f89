"""A tower behind a queue: requests that arrive together are encoded together, beside the event loop."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from serve.deadline import deadline_error
from serve.deployments.coalescing import settle
from serve.messages import Vector
from serve.settings import Batching
from stbir.embedding.embed import encode

Collate = Callable[[Sequence[Any]], Tensor]


def best_device() -> torch.device:
    """The accelerator Ray gave this process, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, eq=False)
class Tower:
    """An encoder, and what makes its input of a batch."""

    encoder: nn.Module
    collate: Collate

    def encode(self, items: Sequence[Any]) -> list[Vector]:
        """The vectors of a batch, each (D,)."""
        return list(encode(self.encoder, self.collate(items)))


def tower(encoder: nn.Module, collate: Collate, sample: Any) -> Tower:
    """On the device of this replica, and warm: the first pass of `sample` is a slow one."""
    made = Tower(encoder.to(best_device()).eval(), collate)
    made.encode([sample])
    return made


@dataclass(frozen=True, eq=False)
class Asked:
    """One item that waits: by which tower, until when, and where its vector goes."""

    tower: Tower
    item: Any
    deadline: float
    vector: asyncio.Future[Vector]

    def wanted(self) -> bool:
        """Whether somebody still waits; whoever is late hears of it."""
        if not self.vector.done() and (error := deadline_error(self.deadline)):
            self.vector.set_exception(error)
        return not self.vector.done()


class BatchedEncoder:
    """Awaited with a tower and one item, answers its unit vector (D,). `told` hears each batch's size.

    What comes while a batch is computed is the next one: nobody waits for a timer unless `batching` says so.
    One thread computes, so that the event loop goes on answering health checks while torch works.
    """

    def __init__(self, batching: Batching, told: Callable[[int], None] = lambda size: None) -> None:
        self._batching, self._told = batching, told
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._waiting: deque[Asked] = deque()
        self._under_way = set[asyncio.Task[None]]()

    async def __call__(self, tower: Tower, item: Any, deadline: float = math.inf) -> Vector:
        """The vector of one item. Raises LateError where its turn comes after the deadline."""
        asked = Asked(tower, item, deadline, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        self._begin()
        return await asked.vector

    def _begin(self) -> None:
        if self._waiting and len(self._under_way) < self._batching.max_concurrent_batches:
            task = asyncio.get_running_loop().create_task(self._next_batch())
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._begin()

    async def _next_batch(self) -> None:
        most = self._batching.max_batch_size
        if len(self._waiting) < most and self._batching.batch_wait_timeout_s:
            await asyncio.sleep(self._batching.batch_wait_timeout_s)
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        wanted = [asked for asked in taken if asked.wanted()]
        # One tower, but for the moment when the service changes over to another.
        for tower in dict.fromkeys(asked.tower for asked in wanted):
            await self._answer(tower, [asked for asked in wanted if asked.tower is tower])

    async def _answer(self, tower: Tower, batch: list[Asked]) -> None:
        self._told(len(batch))
        items, loop = [asked.item for asked in batch], asyncio.get_running_loop()
        answers: Sequence[Any]
        try:
            answers = await loop.run_in_executor(self._thread, tower.encode, items)
        except Exception as error:  # whoever asked hears of it
            answers = [error] * len(batch)
        for asked, answer in zip(batch, answers, strict=True):
            settle(asked.vector, answer)
