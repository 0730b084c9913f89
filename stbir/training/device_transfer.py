"""Transfers between host and device: pinned, one step ahead, and back with one synchronisation."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


def to_device(rows: Tensor, device: torch.device) -> Tensor:
    """A host tensor on the device. On CUDA returns before it is copied, which needs pinned memory."""
    if device.type != "cuda":
        return rows.to(device)
    with torch.cuda.device(device):  # pinning in another thread would start a context on the first GPU
        return rows.pin_memory().to(device, non_blocking=True)


def to_host(*tensors: Tensor) -> list[Tensor]:
    """Tensors of one device on the host. On CUDA waits once for the device, however many they are."""
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]  # from CUDA: into pinned memory
    if tensors[0].is_cuda:
        torch.cuda.current_stream(tensors[0].device).synchronize()
    return copies


def with_inputs(
    items: Iterable[Item], prepare: Callable[[Item], Prepared], device: torch.device
) -> Iterator[tuple[Item, Prepared]]:
    """Each item with what `prepare` makes of it. On CUDA a thread prepares the next item during a step.

    On CPUs nothing runs ahead, because a thread would take CPU time from the step.
    """
    pairs = ((item, prepare(item)) for item in items)
    return one_ahead(pairs) if device.type == "cuda" else pairs


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items; a thread takes the next one while the caller uses the last. Raises what `items` raises."""
    with ThreadPoolExecutor(1) as thread:
        pending = thread.submit(next, items, None)
        while (item := pending.result()) is not None:
            pending = thread.submit(next, items, None)
            yield item
