"""Fusion of sketch and text features into one query vector: weighted, normalised mean."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stbir.errors import InputError


class Gate(nn.Module):
    """Fusion gate: shifts the sketch weight of each query, from its sketch and text features.

    The last layer starts at zero, so a new gate fuses with the plain mean.
    """

    def __init__(self, dim: int, hidden: int, dropout: float = 0.5) -> None:
        super().__init__()
        last = nn.Linear(hidden, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * dim, hidden), nn.ReLU(), last)

    def forward(self, sketch_BD: Tensor, text_BD: Tensor) -> Tensor:
        """(B, D), (B, D) → (B, 1), added to the log odds of the sketch weight."""
        return self.layers(torch.cat([sketch_BD, text_BD], dim=-1))  # type: ignore[no-any-return]

    @torch.no_grad()
    def rescale(self, factor_D: Tensor) -> None:
        """Multiply the weights of each feature dimension by `factor_D`; dimensions that are new have none."""
        old = self.layers[1]
        assert isinstance(old, nn.Linear)
        weight_H2D = old.weight.view(old.out_features, 2, -1)
        weight_H2D = F.pad(weight_H2D, (0, len(factor_D) - weight_H2D.shape[2])) * factor_D
        self.layers[1] = nn.Linear(2 * len(factor_D), old.out_features).to(old.weight)
        self.layers[1].load_state_dict({"weight": weight_H2D.flatten(1), "bias": old.bias})


def fuse(
    sketch_BD: Tensor | None,
    text_BD: Tensor | None,
    sketch_weight: float = 0.5,
    gate: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """norm(w·ŝ + (1 - w)·t̂), (B, D). With one modality (the other None) the result is that modality.

    `sketch_weight` w is in [0, 1]; 0.5 is the mean of arXiv 2604.15735. A `gate` shifts w for each query
    and leaves 0 and 1 unchanged. Raises InputError if both are None or w is out of range.
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
    """The anchor of a training pair: normalised mean of unit features, each (B, D)."""
    return F.normalize(torch.stack(features).sum(0), dim=-1)
