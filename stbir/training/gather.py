"""From a worker's rows to the global batch's, with gradient; the objective never knows."""

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor

from stbir.training.negatives import Keys


def gather_features(rows: Tensor) -> Tensor:
    """(n, D) of this worker → (n·W, D) of all, in rank order; gradients flow back to their worker.

    Every worker computes the same global loss, so the backward pass sums W equal gradients and DDP's
    mean over workers gives the gradient of the global loss exactly.
    """
    if alone():
        return rows
    return torch.cat(list(dist_nn.all_gather(rows.contiguous())))  # type: ignore[no-untyped-call]


def gather_keys(keys: Keys) -> Keys:
    """The keys of all workers, in rank order."""
    if alone():
        return keys
    return Keys(_gather(keys.photo), _gather(keys.text), _gather(keys.label), keys.rows_a_sample)


def _gather(rows: Tensor) -> Tensor:
    out = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(out, rows)
    return torch.cat(out)


def rank() -> int:
    """Which of the workers this is."""
    return 0 if alone() else dist.get_rank()


def alone() -> bool:
    """Whether this process trains by itself."""
    return not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)
