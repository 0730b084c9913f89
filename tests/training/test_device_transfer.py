"""A step waits once for the device, its copies do not wait, and inputs are prepared one step ahead."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stbir.data.photo_index import PhotoIndex
from stbir.training import loop
from stbir.training.device_transfer import one_ahead, to_device, with_inputs
from stbir.training.loop import train
from stbir.training.stages import start_stage
from tests.training.test_loop import CPU, N, batches, new_run, photos  # noqa: F401

READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}
READING_METHODS = ("tolist", "numpy", "cpu", "__array__")


class HostReads(TorchDispatchMode):
    """Lists what would wait for a GPU: `item`, `if tensor`, a boolean index, `nonzero`, `tolist`, `cpu`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.found: list[str] = []
        for name in READING_METHODS:
            monkeypatch.setattr(Tensor, name, self._recording(name, getattr(Tensor, name)))

    def _recording(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def read(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            self.found.append(name)
            return method(tensor, *args, **kwargs)

        return read

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> object:
        is_mask = func is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if func in READS or is_mask:
            self.found.append(str(func))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("name", ["pretrain", "joint", "learnt", "sketch", "image", "text", "fusion"])
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_step_waits_for_the_device_once(
    chunk_size: int | None,
    name: str,
    photos: PhotoIndex,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All values that the host needs come from one `to_host`; the rest of the step reads none."""
    r, new = new_run(name)
    run = start_stage(new.stage, replace(r, chunk_size=chunk_size), new.model, num_steps=6)
    reads, waits, to_host = HostReads(monkeypatch), list[int](), loop.to_host
    monkeypatch.setattr(loop, "to_host", lambda *tensors: waits.append(len(tensors)) or to_host(*tensors))
    with reads:
        steps = train(run, r, photos, batches(name, 3), CPU)
        next(steps)
        reads.found.clear()  # building the cache of features may read
        list(steps)
    assert waits == [2, 2, 2]
    assert reads.found == ["tolist", "numpy"] * 2  # of the losses and the photos that `to_host` returned


def test_hidden_reads_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.ones(4)
    reads: list[Callable[[], Any]] = [
        rows.sum().item,
        lambda: rows[rows > 0],
        lambda: bool(rows.any()),
        rows.nonzero,
        lambda: rows.tolist(),
        lambda: rows.cpu(),
    ]
    for read in reads:
        with monkeypatch.context() as patch, HostReads(patch) as mode:
            read()
        assert mode.found


def test_copy_to_cuda_is_pinned_and_does_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: the calls are recorded."""
    calls: list[object] = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.device("cpu"))
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: calls.append("pinned") or self)
    monkeypatch.setattr(Tensor, "to", lambda self, *a, **k: calls.append((a, k)) or self)
    cuda = torch.device("cuda", 1)
    to_device(torch.zeros(2), cuda)
    assert calls == ["pinned", ((cuda,), {"non_blocking": True})]
    calls.clear()
    to_device(torch.zeros(2), CPU)
    assert calls == [((CPU,), {})]


def test_next_item_is_prepared_while_the_caller_uses_the_last_one() -> None:
    is_prepared = [threading.Event() for _ in range(4)]

    def prepare(number: int) -> int:
        is_prepared[number].set()
        return 10 * number

    pairs = one_ahead((number, prepare(number)) for number in range(4))
    assert next(pairs) == (0, 0)
    assert is_prepared[1].wait(10)
    assert not is_prepared[2].is_set()
    assert list(pairs) == [(1, 10), (2, 20), (3, 30)]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_errors_of_items_reach_the_caller(device: str) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise RuntimeError("expected step 2")

    pairs = with_inputs(items(), str, torch.device(device))
    assert next(pairs) == (1, "1")
    with pytest.raises(RuntimeError, match="expected step 2"):
        next(pairs)


def test_cpu_prepares_nothing_ahead() -> None:
    prepared: list[int] = []
    pairs = with_inputs(range(N), prepared.append, CPU)
    next(pairs)
    assert prepared == [0]
