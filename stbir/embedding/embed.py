"""Encode many images or texts to features, in batches on the encoder's device."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from stbir.config import Preprocess
from stbir.embedding.explanation import Parts, leave_out_words, occlude_cells
from stbir.gallery.arrays import Features
from stbir.images import (
    PHOTO_FORMATS,
    Pixels,
    decode_photo,
    decode_query_sketch,
    decode_sketch,
)
from stbir.model.encoders import ImageEncoder, TextEncoder
from stbir.model.fusion import Gate, fuse

Decode = Callable[..., Pixels]  # of the bytes, the size, and `resize`
BATCH = 64
T = TypeVar("T")


def embed_photos(encoder: ImageEncoder, photos: Sequence[bytes], batch: int = BATCH) -> Features:
    """Image files → unit vectors (N, D). Raises InputError for data that does not decode."""
    return _embed_images(encoder, photos, decode_photo, batch)


def embed_sketches(encoder: ImageEncoder, sketches: Sequence[bytes], batch: int = BATCH) -> Features:
    """Image files → unit vectors (N, D). Raises InputError for data that does not decode."""
    return _embed_images(encoder, sketches, decode_sketch, batch)


def embed_query_sketches(encoder: ImageEncoder, sketches: Sequence[bytes], batch: int = BATCH) -> Features:
    """Image files of queries → unit vectors (N, D). Also raises NoStrokeError if nothing is drawn on one."""
    return _embed_images(encoder, sketches, partial(decode_query_sketch, formats=PHOTO_FORMATS), batch)


def embed_texts(encoder: TextEncoder, texts: Sequence[str], batch: int = BATCH) -> Features:
    """Texts → unit vectors (N, D)."""
    return _embed_batches(encoder, texts, encoder.tokenize, batch)


def embed_sketch_parts(encoder: ImageEncoder, sketch: bytes) -> Parts:
    """An image file and its cells → vectors. Raises InputError as `embed_query_sketches` does."""
    to = encoder.preprocess
    cells, pixels = occlude_cells(decode_query_sketch(sketch, to.size, to.resize, PHOTO_FORMATS))
    return Parts(cells, _embed_batches(encoder, list(pixels), stack_pixels, BATCH))


def embed_text_parts(encoder: TextEncoder, text: str) -> Parts:
    """A text and its words → vectors. Raises InputError for too many words."""
    words, texts = leave_out_words(text)
    return Parts(words, embed_texts(encoder, texts))


def encode(encoder: nn.Module, inputs: Tensor) -> Features:
    """Encode pixels (B, C, H, W) or tokens (B, L) → (B, D) on the CPU. GPUs use bfloat16 autocast."""
    device = _device(encoder)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    with torch.inference_mode(), autocast:
        features: Tensor = encoder(inputs.to(device))
    return features.float().cpu().numpy()


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Set eval mode inside; afterwards restore the mode of each submodule."""
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, mode in modes:
            child.training = mode


def fuse_vectors(
    sketch_BD: Features | None, text_BD: Features | None, sketch_weight: float, gate: Gate | None
) -> Features:
    """Query vectors (B, D) of sketch and text vectors, on the gate's device. Raises InputError as `fuse`."""
    device = None if gate is None else next(gate.parameters()).device
    sketch, text = (
        None if each is None else torch.tensor(each, device=device) for each in (sketch_BD, text_BD)
    )
    with torch.inference_mode(), eval_mode(gate or nn.Identity()):
        return fuse(sketch, text, sketch_weight, gate).cpu().numpy()


def _embed_images(encoder: ImageEncoder, images: Sequence[bytes], decode: Decode, batch: int) -> Features:
    return _embed_batches(encoder, images, partial(_stack, decode, encoder.preprocess), batch)


def _stack(decode: Decode, to: Preprocess, images: Sequence[bytes]) -> Tensor:
    return stack_pixels([decode(image, to.size, resize=to.resize) for image in images])


def stack_pixels(pixels: Sequence[Pixels]) -> Tensor:
    """Images (C, H, W) of equal size → (B, C, H, W)."""
    return torch.from_numpy(np.stack(pixels))


def _embed_batches(
    encoder: ImageEncoder | TextEncoder,
    items: Sequence[T],
    collate: Callable[[Sequence[T]], Tensor],
    batch: int,
) -> Features:
    starts = range(0, len(items), batch)
    with eval_mode(encoder):
        parts = [encode(encoder, collate(items[start : start + batch])) for start in starts]
    return np.concatenate([np.empty((0, encoder.dim), np.float32), *parts])


def _device(module: nn.Module) -> torch.device:
    return next(chain(module.parameters(), module.buffers())).device
