import asyncio
import math
import threading
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from serve.deployments.batching import BatchedEncoder, Tower
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


def doubler() -> Doubler:
    """One that does not wait."""
    made = Doubler()
    made.go.set()
    return made


async def together(count: int, batching: Batching) -> tuple[list[float], list[int]]:
    """The answers to 0 … count - 1 sent at once, and the sizes of the batches they came from."""
    tower, sizes = Doubler(), list[int]()
    encoder, made = BatchedEncoder(batching, sizes.append), Tower(tower, _column)
    answers = asyncio.gather(*(encoder(made, number) for number in range(count)))
    await asyncio.sleep(0.05)  # only a free loop comes back from here while the tower waits
    tower.go.set()
    told = [float(vector[0]) for vector in await answers]
    assert sizes == tower.sizes
    return told, sizes


def _column(numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)


PATIENT = Batching(max_batch_size=4, batch_wait_timeout_s=0.02, max_concurrent_batches=1)
AT_ONCE = Batching(max_batch_size=4, batch_wait_timeout_s=0, max_concurrent_batches=1)


@pytest.mark.parametrize("batching", [PATIENT, AT_ONCE])
def test_each_gets_its_own_answer_from_a_shared_batch(batching):
    answers, sizes = asyncio.run(together(10, batching))
    assert answers == [2.0 * number for number in range(10)]
    assert sizes == [4, 4, 2]


def test_one_alone_does_not_wait_for_others():
    batching = Batching(max_batch_size=64, batch_wait_timeout_s=0.01, max_concurrent_batches=2)
    assert asyncio.run(together(1, batching)) == ([0.0], [1])


@pytest.mark.parametrize(("batching", "sizes"), [(PATIENT, [2]), (AT_ONCE, [1, 1])])
def test_what_comes_later_is_waited_for_as_long_as_the_settings_say(batching, sizes):
    async def story() -> list[int]:
        tower = doubler()
        encoder, made = BatchedEncoder(batching), Tower(tower, _column)
        first = asyncio.ensure_future(encoder(made, 1))
        await asyncio.sleep(0.005)
        await asyncio.gather(first, encoder(made, 2))
        return tower.sizes

    assert asyncio.run(story()) == sizes


def test_what_is_late_or_given_up_is_left_out_and_the_rest_computed():
    async def story() -> None:
        tower = doubler()
        encoder, made = BatchedEncoder(PATIENT), Tower(tower, _column)
        deadlines = (math.inf, 0.0, math.inf, 0.0, math.inf)
        asked = [asyncio.ensure_future(encoder(made, n, until)) for n, until in enumerate(deadlines)]
        await asyncio.sleep(0)
        asked[2].cancel()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        told = [type(a).__name__ if isinstance(a, BaseException) else float(a[0]) for a in answers]
        assert told == [0.0, "LateError", "CancelledError", "LateError", 8.0]
        assert tower.sizes == [1, 1]

    asyncio.run(story())


def test_each_is_encoded_by_the_tower_it_asks():
    async def story() -> None:
        doublers = (doubler(), doubler())
        towers = [Tower(each, _column) for each in doublers]
        with torch.no_grad():
            doublers[1].scale.fill_(-1)
        encoder = BatchedEncoder(PATIENT)
        answers = await asyncio.gather(*(encoder(towers[number % 2], number) for number in range(4)))
        assert [float(vector[0]) for vector in answers] == [0.0, -1.0, 4.0, -3.0]
        assert [each.sizes for each in doublers] == [[2], [2]]

    asyncio.run(story())


def test_a_tower_that_fails_fails_for_its_batch_and_goes_on():
    async def story() -> None:
        encoder, made = BatchedEncoder(AT_ONCE), Tower(doubler(), _column)
        failed = await asyncio.gather(
            *(encoder(made, item) for item in (1, "no number")), return_exceptions=True
        )
        assert [type(error) for error in failed] == [TypeError, TypeError]
        assert float((await encoder(made, 4))[0]) == 8.0

    asyncio.run(story())
