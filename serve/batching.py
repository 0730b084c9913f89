"""A tower behind a queue: requests that arrive together are encoded together, beside the event loop."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import torch
from ray import serve
from torch import Tensor, nn

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

    async def __call__(self, item: Any) -> Vector:
        """The vector of one item."""
        vector: Vector = await self._queue(item)
        return vector

    async def _beside_loop(self, items: list[Any]) -> list[Vector]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self.encode, items)

    def encode(self, items: Sequence[Any]) -> list[Vector]:
        """The vectors of a batch, each (D,)."""
        return list(encode(self.encoder, self.collate(items)))
