import asyncio
import math
import threading
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from serve.batching import BatchedEncoder, Tower
from serve.settings import Batching


class Doubler(nn.Module):
    """Twice its input; notes the sizes of its batches, and waits for `go` first."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.sizes: list[int] = []
        self.go = threading.Event()

    def forward(self, numbers: Tensor) -> Tensor:
        assert self.go.wait(timeout=10), "the event loop was blocked"
        self.sizes.append(len(numbers))
        return self.scale * numbers[:, None]


class Numbers:
    """A deployment: Serve batches nowhere but inside a replica."""

    async def together(self, count: int, batching: Batching) -> tuple[list[float], list[int]]:
        """The answers to 0 … count - 1 sent at once, and the sizes of the batches they came from."""
        tower, sizes = Doubler(), list[int]()
        encoder, made = BatchedEncoder(batching, sizes.append), Tower(tower, _column)
        answers = asyncio.gather(*(encoder(made, number) for number in range(count)))
        await asyncio.sleep(0.05)  # only a free loop comes back from here while the tower waits
        tower.go.set()
        told = [float(vector[0]) for vector in await answers]
        assert sizes == tower.sizes
        return told, sizes

    async def late(self, batching: Batching) -> tuple[list[float | str], list[int]]:
        """The answers to 0 … 3, of which 1 and 3 come too late, and the sizes of the batches computed."""
        tower = Doubler()
        tower.go.set()
        encoder, made = BatchedEncoder(batching), Tower(tower, _column)
        asked = (encoder(made, number, 0.0 if number % 2 else math.inf) for number in range(4))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        told = [type(a).__name__ if isinstance(a, BaseException) else float(a[0]) for a in answers]
        return told, tower.sizes

    async def two(self, batching: Batching) -> tuple[list[float], list[list[int]]]:
        """The answers to 0 … 3, of which the odd ones ask another tower, and the batches of both."""
        doublers = (Doubler(), Doubler())
        towers = [Tower(each, _column) for each in doublers]
        with torch.no_grad():
            doublers[1].scale.fill_(-1)
        for each in doublers:
            each.go.set()
        encoder = BatchedEncoder(batching)
        answers = await asyncio.gather(*(encoder(towers[number % 2], number) for number in range(4)))
        return [float(vector[0]) for vector in answers], [each.sizes for each in doublers]


def _column(numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)


@pytest.fixture(scope="module")
def numbers(serve_port):
    from ray import serve

    options = {"max_ongoing_requests": 64, "ray_actor_options": {"num_cpus": 0.1}}
    app = serve.deployment(Numbers, **options).bind()
    handle = serve.run(app, name="numbers", route_prefix=None)
    yield handle
    serve.delete("numbers")


def test_each_gets_its_own_answer_from_a_shared_batch(numbers):
    batching = Batching(max_batch_size=4, batch_wait_timeout_s=0.02, max_concurrent_batches=1)
    answers, sizes = numbers.together.remote(10, batching).result(timeout_s=60)
    assert answers == [2.0 * number for number in range(10)]
    assert sizes == [4, 4, 2]


def test_one_alone_does_not_wait_for_others(numbers):
    batching = Batching(max_batch_size=64, batch_wait_timeout_s=0.01, max_concurrent_batches=2)
    assert numbers.together.remote(1, batching).result(timeout_s=60) == ([0.0], [1])


def test_what_is_late_is_left_out_and_the_rest_computed(numbers):
    batching = Batching(max_batch_size=4, batch_wait_timeout_s=0.02, max_concurrent_batches=1)
    answers, sizes = numbers.late.remote(batching).result(timeout_s=60)
    assert answers == [0.0, "LateError", 4.0, "LateError"]
    assert sizes == [2]


def test_each_is_encoded_by_the_tower_it_asks(numbers):
    batching = Batching(max_batch_size=4, batch_wait_timeout_s=0.02, max_concurrent_batches=1)
    assert numbers.two.remote(batching).result(timeout_s=60) == ([0.0, -1.0, 4.0, -3.0], [[2], [2]])
