"""Many encoded pictures or captions → their features, in batches on the encoder's own device."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from stbir.gallery.arrays import Features
from stbir.images import Pixels, photo_pixels, sketch_pixels
from stbir.model.encoders import ImageEncoder, TextEncoder

Decode = Callable[[bytes, int], Pixels]
BATCH = 64
T = TypeVar("T")


def embed_photos(encoder: ImageEncoder, photos: Sequence[bytes], batch: int = BATCH) -> Features:
    """Encoded photos → (N, D) unit vectors. Raises InputError for what is no picture."""
    return _embed_pictures(encoder, photos, photo_pixels, batch)


def embed_sketches(encoder: ImageEncoder, sketches: Sequence[bytes], batch: int = BATCH) -> Features:
    """Encoded sketches → (N, D) unit vectors. Raises InputError for what is no picture."""
    return _embed_pictures(encoder, sketches, sketch_pixels, batch)


def embed_texts(encoder: TextEncoder, texts: Sequence[str], batch: int = BATCH) -> Features:
    """Captions → (N, D) unit vectors."""
    return _in_batches(encoder, texts, encoder.tokenize, batch)


def encode(encoder: nn.Module, inputs: Tensor) -> Features:
    """One batch, pixels (B, C, H, W) or tokens (B, L), → (B, D) on the CPU; bfloat16 inside on GPUs."""
    device = _device(encoder)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    with torch.inference_mode(), autocast:
        features: Tensor = encoder(inputs.to(device))
    return features.float().cpu().numpy()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards each submodule is in the mode it was in, frozen ones included."""
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, mode in modes:
            child.training = mode


def _embed_pictures(encoder: ImageEncoder, pictures: Sequence[bytes], decode: Decode, batch: int) -> Features:
    return _in_batches(encoder, pictures, partial(_stack, decode, encoder.preprocess.size), batch)


def _stack(decode: Decode, size: int, pictures: Sequence[bytes]) -> Tensor:
    return torch.from_numpy(np.stack([decode(picture, size) for picture in pictures]))  # (B, C, size, size)


def _in_batches(
    encoder: ImageEncoder | TextEncoder,
    items: Sequence[T],
    collate: Callable[[Sequence[T]], Tensor],
    batch: int,
) -> Features:
    starts = range(0, len(items), batch)
    with evaluating(encoder):
        parts = [encode(encoder, collate(items[start : start + batch])) for start in starts]
    return np.concatenate([np.empty((0, encoder.dim), np.float32), *parts])


def _device(module: nn.Module) -> torch.device:
    return next(chain(module.parameters(), module.buffers())).device
