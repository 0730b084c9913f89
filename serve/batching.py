"""A tower behind a queue: requests that arrive together are encoded together, beside the event loop."""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import torch
from ray import serve
from torch import Tensor, nn

from serve import budget
from serve.messages import Vector
from serve.settings import Batching
from stbir.retrieval.embed import encode

Collate = Callable[[Sequence[Any]], Tensor]
Asked = tuple["Tower", Any, float]  # by which tower, what, until when


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


class BatchedEncoder:
    """Awaited with a tower and one item, answers its unit vector (D,). `told` hears each batch's size.

    One thread computes, so that the event loop goes on answering health checks while torch works.
    """

    def __init__(self, batching: Batching, told: Callable[[int], None] = lambda size: None) -> None:
        self._told = told
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode")
        # Bound at run time, not by decoration: the sizes are settings.
        self._queue = serve.batch(**asdict(batching))(self._beside_loop)

    async def __call__(self, tower: Tower, item: Any, deadline: float = math.inf) -> Vector:
        """The vector of one item. Raises LateError where its turn comes after the deadline."""
        vector: Vector = await self._queue((tower, item, deadline))
        return vector

    async def _beside_loop(self, asked: list[Asked]) -> list[Vector | Exception]:
        """A batch; what is late by now is left out of it and answered with its error."""
        answers: list[Any] = [budget.late(deadline) for *_, deadline in asked]
        left = [place for place, error in enumerate(answers) if error is None]
        # One tower, but for the moment when the service changes over to another.
        for tower in dict.fromkeys(asked[place][0] for place in left):
            places = [place for place in left if asked[place][0] is tower]
            vectors = await self._encoded(tower, [asked[place][1] for place in places])
            for place, vector in zip(places, vectors, strict=True):
                answers[place] = vector
        return answers

    async def _encoded(self, tower: Tower, items: list[Any]) -> list[Vector]:
        self._told(len(items))
        return await asyncio.get_running_loop().run_in_executor(self._thread, tower.encode, items)
