"""A toy dataset and a retriever that is exact on it.

A photo shows a shape and a colour, a sketch the shape only, a caption the colour only. A sketch matches all
photos of its shape, a caption all of its colour, and only both together identify the photo.
"""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from stbir.config import Preprocess
from stbir.data.schema import Row
from stbir.data.sources.registry import open_source
from stbir.model.retriever import Retriever

IMAGE_SIZE = 16
GREY_STEP = 12  # between two shapes or colours
NUM_KINDS = 8  # of shapes, and of colours


def png(left: int, right: int) -> bytes:
    """An image whose halves encode a shape and a colour as grey levels."""
    grey = np.full((IMAGE_SIZE, IMAGE_SIZE), GREY_STEP * right, np.uint8)
    grey[:, : IMAGE_SIZE // 2] = GREY_STEP * left
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()


def row(shape: int, colour: int, sketches: int = 1, text: bool = True, category: str = "thing") -> Row:
    return {
        "photo_id": f"{shape}/{colour}",
        "category": category,
        "split": "test",
        "photo": png(shape, colour),
        "sketches": [png(shape, shape)] * sketches,
        "text": str(colour) if text else None,
        "sketch_count": sketches,
    }


def _one_hot(pixels: Tensor) -> Tensor:
    """Grey images (B, C, H, W) → one-hot (B, NUM_KINDS)."""
    level = pixels.float().mean(dim=(1, 2, 3)) / GREY_STEP
    return nn.functional.one_hot(level.round().long(), NUM_KINDS).float()


class ToyImageEncoder(nn.Module):
    dim = 2 * NUM_KINDS
    preprocess = Preprocess(IMAGE_SIZE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def __init__(self, sees_colour: bool) -> None:
        super().__init__()
        self.register_buffer("sees_colour", torch.tensor(float(sees_colour)))
        self.dropout = nn.Dropout(0.9)  # makes the features wrong in training mode

    def forward(self, pixels: Tensor) -> Tensor:
        shape, colour = pixels[..., : IMAGE_SIZE // 2], pixels[..., IMAGE_SIZE // 2 :]
        features = torch.cat([_one_hot(shape), self.sees_colour * _one_hot(colour)], dim=1)
        return self.dropout(nn.functional.normalize(features, dim=1))


class ToyTextEncoder(nn.Module):
    dim = 2 * NUM_KINDS

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("device_marker", torch.zeros(()))

    def tokenize(self, texts: list[str]) -> Tensor:
        return torch.tensor([[int(text)] for text in texts])

    def forward(self, tokens: Tensor) -> Tensor:
        return nn.functional.one_hot(NUM_KINDS + tokens[:, 0], 2 * NUM_KINDS).float()


def toy_retriever() -> Retriever:
    return Retriever(ToyImageEncoder(sees_colour=False), ToyImageEncoder(sees_colour=True), ToyTextEncoder())


def synthetic_rows(num_photos: int) -> list[Row]:
    """Rows of the synthetic source, for a trained or random model."""
    source = open_source(f"synthetic:{num_photos}")
    return [
        {
            "photo_id": entry.photo_id,
            "category": entry.category,
            "split": entry.split,
            "photo": source.read(entry.photo),
            "sketches": [source.read(uri) for uri in entry.sketches],
            "text": entry.text,
            "sketch_count": len(entry.sketches),
        }
        for entry in source.entries
    ]
