"""From what a query has to one vector: the weighted normalised mean of sketch and text features."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stbir.errors import InputError


class Gate(nn.Module):
    """How much more a query's sketch should count than asked for, from what its sketch and its text are.

    It begins with 0: what it does not learn to tell apart is fused by the plain mean.
    """

    def __init__(self, dim: int, hidden: int, dropout: float = 0.5) -> None:
        super().__init__()
        last = nn.Linear(hidden, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * dim, hidden), nn.ReLU(), last)

    def forward(self, sketch_BD: Tensor, text_BD: Tensor) -> Tensor:
        """(B, D), (B, D) → (B, 1), to be added to the log odds of the sketch's weight."""
        return self.layers(torch.cat([sketch_BD, text_BD], dim=-1))  # type: ignore[no-any-return]


def fuse(
    sketch_BD: Tensor | None,
    text_BD: Tensor | None,
    sketch_weight: float = 0.5,
    gate: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """norm(w·ŝ + (1 - w)·t̂), (B, D); of one modality alone, that one. Any one may be missing (None).

    `sketch_weight` w in [0, 1]; 0.5 is the mean of arXiv 2604.15735. A `gate` moves w for each query by
    what its two modalities are worth; 0 and 1 it leaves. Raises InputError where nothing is given or w is
    out of range.
    """
    if not 0 <= sketch_weight <= 1:
        raise InputError(f"sketch_weight: {sketch_weight} is not between 0 and 1")
    if sketch_BD is None and text_BD is None:
        raise InputError("query: neither sketch nor text; give at least one of them")
    if sketch_BD is None or text_BD is None:
        only = sketch_BD if text_BD is None else text_BD
        assert only is not None
        return F.normalize(only, dim=-1)
    weight = torch.tensor(sketch_weight, device=sketch_BD.device)
    if gate is not None:
        weight = torch.sigmoid(torch.logit(weight) + gate(sketch_BD, text_BD).float())  # (B, 1)
    return F.normalize(weight * sketch_BD + (1 - weight) * text_BD, dim=-1)


def mean_anchor(features: list[Tensor]) -> Tensor:
    """The anchor of a stage: the normalised mean of the given unit features, each (B, D)."""
    return F.normalize(torch.stack(features).sum(0), dim=-1)
