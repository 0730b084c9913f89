import asyncio
import math
import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from serve.deadline import Deadline
from serve.deployments import batching as batching_module
from serve.deployments.batching import BatchedEncoder, EncoderLoader, LoadedEncoder
from serve.settings import Batching


class Doubler(nn.Module):
    """Doubles its input once `go` is set, and records the sizes of its batches."""

    def __init__(self, is_blocked: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.sizes: list[int] = []
        self.go = threading.Event()
        if not is_blocked:
            self.go.set()

    def forward(self, numbers: Tensor) -> Tensor:
        assert self.go.wait(timeout=10), "the event loop was blocked"
        self.sizes.append(len(numbers))
        return self.scale * numbers[:, None]


def loaded(encoder: Doubler) -> LoadedEncoder:
    return LoadedEncoder(encoder, _collate)


def _collate(numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)


async def encode_range(count: int, batching: Batching) -> tuple[list[float], list[int]]:
    """The results of 0 … count - 1 sent at once, and the sizes of their batches."""
    doubler, sizes = Doubler(is_blocked=True), list[int]()
    batched, encoder = BatchedEncoder(batching, sizes.append), loaded(doubler)
    vectors = asyncio.gather(*(batched(encoder, number, FOREVER) for number in range(count)))
    await asyncio.sleep(0.05)  # a blocked event loop would never set `go`
    doubler.go.set()
    results = [float(vector[0]) for vector in await vectors]
    assert sizes == doubler.sizes
    return results, sizes


FOREVER = Deadline.after(math.inf)
WAIT = Batching(max_batch_size=4, batch_wait_timeout_s=0.02, max_concurrent_batches=1)
NO_WAIT = Batching(max_batch_size=4, batch_wait_timeout_s=0, max_concurrent_batches=1)


@pytest.mark.parametrize("batching", [WAIT, NO_WAIT])
def test_each_item_of_a_batch_gets_its_own_vector(batching):
    results, sizes = asyncio.run(encode_range(10, batching))
    assert results == [2.0 * number for number in range(10)]
    assert sizes == [4, 4, 2]


def test_single_item_is_encoded_without_a_full_batch():
    batching = Batching(max_batch_size=64, batch_wait_timeout_s=0.01, max_concurrent_batches=2)
    assert asyncio.run(encode_range(1, batching)) == ([0.0], [1])


@pytest.mark.parametrize(("batching", "sizes"), [(WAIT, [2]), (NO_WAIT, [1, 1])])
def test_batch_wait_timeout(batching, sizes):
    async def scenario() -> list[int]:
        doubler = Doubler()
        batched, encoder = BatchedEncoder(batching), loaded(doubler)
        vector = asyncio.ensure_future(batched(encoder, 1, FOREVER))
        await asyncio.sleep(0.005)
        await asyncio.gather(vector, batched(encoder, 2, FOREVER))
        return doubler.sizes

    assert asyncio.run(scenario()) == sizes


def test_expired_and_cancelled_items_are_not_encoded():
    async def scenario() -> None:
        doubler = Doubler()
        batched, encoder = BatchedEncoder(WAIT), loaded(doubler)
        budgets_s = (math.inf, 0.0, math.inf, 0.0, math.inf)
        deadlines = [Deadline.after(budget_s) for budget_s in budgets_s]
        tasks = [asyncio.ensure_future(batched(encoder, n, deadline)) for n, deadline in enumerate(deadlines)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        summary = [type(r).__name__ if isinstance(r, BaseException) else float(r[0]) for r in results]
        assert summary == [0.0, "DeadlineExceededError", "CancelledError", "DeadlineExceededError", 8.0]
        assert doubler.sizes == [2]  # they take no place in a batch

    asyncio.run(scenario())


def test_each_item_is_encoded_by_its_own_encoder():
    async def scenario() -> None:
        doublers = (Doubler(), Doubler())
        encoders = [loaded(doubler) for doubler in doublers]
        with torch.no_grad():
            doublers[1].scale.fill_(-1)
        batched = BatchedEncoder(WAIT)
        vectors = await asyncio.gather(
            *(batched(encoders[number % 2], number, FOREVER) for number in range(4))
        )
        assert [float(vector[0]) for vector in vectors] == [0.0, -1.0, 4.0, -3.0]
        assert [doubler.sizes for doubler in doublers] == [[2], [2]]

    asyncio.run(scenario())


def test_error_fails_its_batch_only():
    async def scenario() -> None:
        batched, encoder = BatchedEncoder(NO_WAIT), loaded(Doubler())
        errors = await asyncio.gather(
            *(batched(encoder, item, FOREVER) for item in (1, "no number")), return_exceptions=True
        )
        assert [type(error) for error in errors] == [TypeError, TypeError]
        assert float((await batched(encoder, 4, FOREVER))[0]) == 8.0

    asyncio.run(scenario())


@pytest.mark.slow(reason="the exporter traces an encoder")
def test_replicas_of_two_backends_give_the_same_vectors(checkpoint_uri, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32), np.uint8)
    loaded = [EncoderLoader(name, tmp_path).load_sketch(checkpoint_uri) for name in ("torch", "onnxruntime")]
    assert [str(encoder.backend) for encoder in loaded] == ["torch", "onnxruntime"]
    [expected], [vector] = (encoder.encode([pixels]) for encoder in loaded)
    np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_a_backend_that_fails_is_counted_and_torch_runs(checkpoint_uri, monkeypatch):
    counted = []
    monkeypatch.setattr(batching_module, "count_backend_fallback", counted.append)
    monkeypatch.setattr("stbir.model.backend.export_encoder", lambda *_: b"no graph")
    loaded = EncoderLoader("openvino").load_text(checkpoint_uri)
    assert str(loaded.backend) == "torch (fallback)"
    assert counted == ["text"]
    assert np.linalg.norm(loaded.encode(["red"])[0]) == pytest.approx(1, abs=1e-5)
