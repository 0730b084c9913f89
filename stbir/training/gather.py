"""Gathering of features and keys across workers into the global batch."""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor

from stbir.training.negatives import SampleKeys

T = TypeVar("T")


def gather_features(rows: Tensor) -> Tensor:
    """(n, D) of this worker → (n·W, D) of all workers, in rank order, with gradient.

    Every worker computes the same global loss. The backward pass of the gather sums W equal gradients, and
    DDP averages over the workers, so the result is exactly the gradient of the global loss.
    """
    if not is_distributed():
        return rows
    return torch.cat(list(dist_nn.all_gather(rows.contiguous())))  # type: ignore[no-untyped-call]


def gather_keys(keys: SampleKeys) -> SampleKeys:
    """The keys of all workers, in rank order."""
    if not is_distributed():
        return keys
    return SampleKeys(_gather(keys.photo), _gather(keys.text), _gather(keys.label), keys.rows_per_sample)


def _gather(rows: Tensor) -> Tensor:
    out = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(out, rows)
    return torch.cat(out)


def wait_for_all() -> None:
    """Return once all workers have called it."""
    if is_distributed():
        dist.barrier()


def own_share(items: Sequence[T]) -> Sequence[T]:
    """The items of this worker, if all workers share `items` in turn."""
    return items[rank() :: dist.get_world_size() if is_distributed() else 1]


def rank() -> int:
    """The rank of this worker, 0 without others."""
    return dist.get_rank() if is_distributed() else 0


def is_distributed() -> bool:
    """Whether more than one worker trains."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
