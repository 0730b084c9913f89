"""From a worker's inputs to gradients: at once, or in chunks where a batch does not fit into memory."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stbir.config import Modality, Part
from stbir.training.gather import alone

Rows = dict[Modality, Tensor]  # inputs or features, (N, …) a modality
Terms = dict[str, Tensor]
Objective = Callable[[Rows], Terms]
Backward = Callable[[Rows, Objective, torch.device, int], Terms]  # …, device, seed of the step's dice


def at_once(learner: nn.Module) -> Backward:
    """Encode, ask the objective, go back: gradients of the global loss on every worker."""
    forward = learner if alone() else DistributedDataParallel(learner, broadcast_buffers=False)

    def backward(inputs: Rows, objective: Objective, device: torch.device, seed: int) -> Terms:
        torch.manual_seed(seed)
        with autocast(device):
            features = forward(inputs)
        return _back(objective(features))

    return backward


def in_chunks(learner: nn.Module, size: int, trainable: Collection[Part]) -> Backward:
    """The same gradients with the activations of `size` rows at a time (Gao et al., arXiv 2101.06983).

    Each row is encoded for the features of the whole batch and the gradient of the loss by these; and once
    more, with the same dice, to carry that gradient into the towers that learn.
    """

    def backward(inputs: Rows, objective: Objective, device: torch.device, seed: int) -> Terms:
        def features_of(chunk: Rows, number: int) -> Rows:
            torch.manual_seed((seed + number) % 2**64)
            with autocast(device):
                return learner(chunk)  # type: ignore[no-any-return]

        chunks = _split(inputs, size)
        with torch.no_grad():
            parts = [features_of(chunk, number) for number, chunk in enumerate(chunks)]
        features = {m: torch.cat([part[m] for part in parts]).requires_grad_() for m in inputs}
        terms = _back(objective(features))
        for number, chunk in enumerate(chunks if features.keys() & set(trainable) else []):
            again = features_of({m: rows for m, rows in chunk.items() if m in trainable}, number)
            here = slice(number * size, (number + 1) * size)
            torch.autograd.backward(list(again.values()), [_gradient(features[m])[here] for m in again])
        _mean_over_workers(learner)
        return terms

    return backward


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bf16 on GPUs; CPUs keep float32, where a resumed run should equal the uninterrupted one."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def _back(terms: Terms) -> Terms:
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    return {name: term.detach() for name, term in terms.items()}


def _split(inputs: Rows, size: int) -> list[Rows]:
    rows = max((len(x) for x in inputs.values()), default=0)  # none where only the gate learns
    return [{m: x[at : at + size] for m, x in inputs.items()} for at in range(0, rows, size)]


def _gradient(features: Tensor) -> Tensor:
    """Zero where the objective did not ask for them."""
    return torch.zeros_like(features) if features.grad is None else features.grad


def _mean_over_workers(learner: nn.Module) -> None:
    """What DistributedDataParallel does while it goes back; it knows a single pass only."""
    if alone():
        return
    for parameter in learner.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()
