"""Embed the photos of a catalogue in this process: threads decode parts while the encoder works."""

import os
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from stbir.catalogue.photo import Catalogue
from stbir.catalogue.reading import map_ahead
from stbir.embedding.decode import DecodedPart, UnreadPart, decode_part
from stbir.embedding.embed import BATCH, encode, eval_mode
from stbir.gallery.arrays import Features
from stbir.images import Pixels
from stbir.model.encoders import ImageEncoder

_MAX_DECODERS = 8


def embed_catalogue(
    catalogue: Catalogue, parts: Iterable[DecodedPart | UnreadPart], encoder: ImageEncoder
) -> Iterator[tuple[DecodedPart, Features]]:
    """The parts of a catalogue (`detect_changes`), in order, each with the vectors (B, D) of its new photos.

    Decodes as many parts at a time as there are CPUs, at most _MAX_DECODERS. An image that ends the process
    ends the job; the job on Ray sets it aside.
    """
    num_decoders = min(_MAX_DECODERS, os.cpu_count() or 1)

    def decode(part: DecodedPart | UnreadPart) -> tuple[DecodedPart, Pixels]:
        if isinstance(part, DecodedPart):
            return part, np.empty((0, 3, encoder.preprocess.size, encoder.preprocess.size), np.uint8)
        return decode_part(catalogue, part, encoder.preprocess)

    for decoded, pixels_B3SS in map_ahead(decode, parts, num_decoders, num_ahead=num_decoders):
        yield decoded, _encode(encoder, pixels_B3SS)


def _encode(encoder: ImageEncoder, pixels_B3SS: Pixels) -> Features:
    batches = (pixels_B3SS[start : start + BATCH] for start in range(0, len(pixels_B3SS), BATCH))
    with eval_mode(encoder):
        vectors = [encode(encoder, torch.from_numpy(batch)) for batch in batches]
    return np.concatenate([np.empty((0, encoder.dim), np.float32), *vectors])
