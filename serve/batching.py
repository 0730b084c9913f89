"""A tower behind a queue: requests that arrive together are encoded together, beside the event loop."""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import torch
from ray import serve
from torch import Tensor, nn

from serve import budget
from serve.messages import Vector
from serve.settings import Batching
from stbir.retrieval.embed import encode

Collate = Callable[[Sequence[Any]], Tensor]


def best_device() -> torch.device:
    """The accelerator Ray gave this process, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class BatchedEncoder:
    """Awaited with one item, answers its unit vector (D,); `collate` makes the tower's input of a batch.

    One thread computes, so that the event loop goes on answering health checks while torch works.
    """

    def __init__(self, encoder: nn.Module, collate: Collate, batching: Batching) -> None:
        self.encoder, self.collate = encoder.to(best_device()).eval(), collate
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode")
        # Bound at run time, not by decoration: the sizes are settings.
        self._queue = serve.batch(**asdict(batching))(self._beside_loop)

    async def __call__(self, item: Any, deadline: float = math.inf) -> Vector:
        """The vector of one item. Raises LateError where its turn comes after the deadline."""
        vector: Vector = await self._queue((item, deadline))
        return vector

    async def _beside_loop(self, asked: list[tuple[Any, float]]) -> list[Vector | Exception]:
        """A batch; what is late by now is left out of it and answered with its error."""
        late = [budget.late(deadline) for _, deadline in asked]
        items = [item for (item, _), error in zip(asked, late, strict=True) if error is None]
        loop = asyncio.get_running_loop()
        vectors = iter(await loop.run_in_executor(self._thread, self.encode, items) if items else ())
        return [next(vectors) if error is None else error for error in late]

    def encode(self, items: Sequence[Any]) -> list[Vector]:
        """The vectors of a batch, each (D,)."""
        return list(encode(self.encoder, self.collate(items)))
