"""A world whose right answers are known: a photo shows a shape and a colour, a sketch only the shape, a
caption only the colour, and the towers read them off exactly. So a sketch finds all photos of its shape
equally well, a caption all of its colour, and only both together find the one."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from stbir.config import Preprocess
from stbir.data.schema import Row
from stbir.data.sources.registry import open_source
from stbir.model.retriever import Retriever

SIZE = 16
STEP = 12  # grey levels between two kinds
KINDS = 8  # of shapes, and of colours


def png(left: int, right: int) -> bytes:
    """A picture whose halves are of two kinds."""
    grey = np.full((SIZE, SIZE), STEP * right, np.uint8)
    grey[:, : SIZE // 2] = STEP * left
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


def _kind(pixels: Tensor) -> Tensor:
    """(B, C, H, W) grey → one-hot (B, KINDS)."""
    level = pixels.float().mean(dim=(1, 2, 3)) / STEP
    return nn.functional.one_hot(level.round().long(), KINDS).float()


class Eye(nn.Module):
    dim = 2 * KINDS
    preprocess = Preprocess(SIZE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def __init__(self, sees_colour: bool) -> None:
        super().__init__()
        self.register_buffer("sees_colour", torch.tensor(float(sees_colour)))
        self.part = nn.Dropout(0.9)  # wrong answers, were it left in training mode

    def forward(self, pixels: Tensor) -> Tensor:
        shape, colour = pixels[..., : SIZE // 2], pixels[..., SIZE // 2 :]
        both = torch.cat([_kind(shape), self.sees_colour * _kind(colour)], dim=1)
        return self.part(nn.functional.normalize(both, dim=1))


class Reader(nn.Module):
    dim = 2 * KINDS

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("here", torch.zeros(()))

    def tokenize(self, texts: list[str]) -> Tensor:
        return torch.tensor([[int(text)] for text in texts])

    def forward(self, tokens: Tensor) -> Tensor:
        return nn.functional.one_hot(KINDS + tokens[:, 0], 2 * KINDS).float()


def knowing() -> Retriever:
    return Retriever(Eye(sees_colour=False), Eye(sees_colour=True), Reader())


def synthetic(photos: int) -> list[Row]:
    """Rows that look like real ones, for a model whose answers nobody knows."""
    source = open_source(f"synthetic:{photos}")
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
