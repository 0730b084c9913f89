"""From what a query has to one vector: the weighted normalised mean of sketch and text features."""

import torch
import torch.nn.functional as F
from torch import Tensor

from stbir.errors import InputError


def fuse(sketch_BD: Tensor | None, text_BD: Tensor | None, sketch_weight: float = 0.5) -> Tensor:
    """norm(w·ŝ + (1 - w)·t̂), (B, D); of one modality alone, that one. Any one may be missing (None).

    `sketch_weight` w in [0, 1]; 0.5 is the mean of arXiv 2604.15735. Raises InputError where nothing
    is given or w is out of range.
    """
    if not 0 <= sketch_weight <= 1:
        raise InputError(f"sketch_weight: {sketch_weight} is not between 0 and 1")
    if sketch_BD is None and text_BD is None:
        raise InputError("query: neither sketch nor text; give at least one of them")
    if sketch_BD is None or text_BD is None:
        only = sketch_BD if text_BD is None else text_BD
        assert only is not None
        return F.normalize(only, dim=-1)
    return F.normalize(sketch_weight * sketch_BD + (1 - sketch_weight) * text_BD, dim=-1)


def mean_anchor(features: list[Tensor]) -> Tensor:
    """The anchor of a stage: the normalised mean of the given unit features, each (B, D)."""
    return F.normalize(torch.stack(features).sum(0), dim=-1)
