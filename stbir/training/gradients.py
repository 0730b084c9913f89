"""Forward and backward pass of one step: with the full batch, or in chunks with gradient caching."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stbir.config import Input
from stbir.training.gather import is_distributed

InputTensors = dict[Input, Tensor]  # inputs or features of modalities and views, (N, …) each
Terms = dict[str, Tensor]
LossFn = Callable[[InputTensors], Terms]
Backward = Callable[[InputTensors, LossFn, torch.device, int], Terms]  # inputs, loss, device, RNG seed


def full_batch(model: nn.Module) -> Backward:
    """Encode all inputs at once. Every worker gets the gradient of the global loss."""
    forward = DistributedDataParallel(model, broadcast_buffers=False) if is_distributed() else model

    def backward(inputs: InputTensors, loss_fn: LossFn, device: torch.device, seed: int) -> Terms:
        torch.manual_seed(seed)
        with autocast(device):
            features = forward(inputs)
        return _backward(loss_fn(features))

    return backward


def gradient_cache(model: nn.Module, chunk_size: int, trainable: Collection[Input]) -> Backward:
    """The same gradients with activations of `chunk_size` rows at a time (Gao et al., arXiv 2101.06983).

    A first pass without gradient encodes all chunks, and the loss gives the gradient of each feature. A
    second pass with the same random numbers propagates these gradients into the trainable encoders.
    """

    def backward(inputs: InputTensors, loss_fn: LossFn, device: torch.device, seed: int) -> Terms:
        def encode(chunk: InputTensors, number: int) -> InputTensors:
            torch.manual_seed((seed + number) % 2**64)
            with autocast(device):
                return model(chunk)  # type: ignore[no-any-return]

        chunks = _split(inputs, chunk_size)
        with torch.no_grad():
            parts = [encode(chunk, number) for number, chunk in enumerate(chunks)]
        features = {m: torch.cat([part[m] for part in parts if m in part]).requires_grad_() for m in inputs}
        terms = _backward(loss_fn(features))
        for number, chunk in enumerate(chunks if features.keys() & set(trainable) else []):
            encoded = encode({m: rows for m, rows in chunk.items() if m in trainable}, number)
            rows = slice(number * chunk_size, (number + 1) * chunk_size)
            gradients = [_gradient_or_zeros(features[m])[rows] for m in encoded]
            torch.autograd.backward(list(encoded.values()), gradients)
        _average_gradients(model)
        return terms

    return backward


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bf16 on GPUs. CPUs use float32, so that a resumed run equals an uninterrupted one."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def _backward(terms: Terms) -> Terms:
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    return {name: term.detach() for name, term in terms.items()}


def _split(inputs: InputTensors, chunk_size: int) -> list[InputTensors]:
    num_rows = max((len(x) for x in inputs.values()), default=0)  # 0 if only the gate is trainable
    starts = range(0, num_rows, chunk_size)
    return [
        {m: x[start : start + chunk_size] for m, x in inputs.items() if start < len(x)} for start in starts
    ]


def _gradient_or_zeros(features: Tensor) -> Tensor:
    """The gradient; zeros if the loss does not depend on the features."""
    return torch.zeros_like(features) if features.grad is None else features.grad


def _average_gradients(model: nn.Module) -> None:
    """Average gradients over the workers. DistributedDataParallel supports only a single pass per step."""
    if not is_distributed():
        return
    for parameter in model.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()
