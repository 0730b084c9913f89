"""Hubs, photos that lie near to whatever is asked: their scores lose half of that nearness.

This is CSLS (Conneau et al., ICLR 2018, arXiv 1710.04087, section 2.3). What a photo loses stands in
dimensions of its own, so that a score stays a cosine and any index finds the best. See docs/decisions/0017.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stbir.config import HUBNESS_DIMS, Modality, ModelConfig

ASKING: tuple[Modality, ...] = ("sketch", "text")  # a dimension each; one more makes all photos equally long
NEAREST = 10  # queries; these two are the source's
SHARE = 0.5
MOST = 0.2  # nearness above or below the usual that counts: more would cost the other dimensions their weight
_AT_ONCE = 4096  # photos whose cosines to all kept queries lie in memory


class Mark(nn.Module):
    """What a query takes along, for photos to lose what they owe to being hubs; 0 until measured."""

    share: Tensor

    def __init__(self, asking: Modality) -> None:
        super().__init__()
        self._at = ASKING.index(asking)
        self.register_buffer("share", torch.zeros(()))

    def forward(self, unit_BC: Tensor) -> Tensor:
        """Unit vectors (B, C) → unit vectors (B, C + HUBNESS_DIMS)."""
        own_K = torch.zeros(HUBNESS_DIMS, device=unit_BC.device)
        own_K[self._at] = -self.share
        return F.normalize(torch.cat([unit_BC, own_K.expand(len(unit_BC), -1)], dim=1), dim=-1)


class Hubness(nn.Module):
    """How near a photo is to the queries of training, by their kind, against the usual; 0 until measured."""

    queries: Tensor
    mean_similarity: Tensor
    measured: Tensor

    def __init__(self, width: int, rows: int) -> None:
        """`width`: C, of the vectors; `rows`: R, how many queries of a kind it keeps."""
        super().__init__()
        self.register_buffer("queries", torch.zeros(len(ASKING), rows, width))
        self.register_buffer("mean_similarity", torch.zeros(len(ASKING)))
        self.register_buffer("measured", torch.zeros(()))

    def forward(self, unit_BC: Tensor) -> Tensor:
        """Unit vectors (B, C) → unit vectors (B, C + HUBNESS_DIMS)."""
        off_BK = (self.nearness(unit_BC) - self.mean_similarity).clamp(-MOST, MOST)
        rest_B1 = (len(ASKING) * MOST**2 - off_BK.square().sum(1, keepdim=True)).clamp(min=0).sqrt()
        own_BK = torch.cat([off_BK, rest_B1], dim=1) * self.measured
        return F.normalize(torch.cat([unit_BC, own_BK], dim=1), dim=-1)

    def nearness(self, unit_BC: Tensor) -> Tensor:
        """The mean cosine of the NEAREST queries of each kind, (B, 2)."""
        with torch.autocast(unit_BC.device.type, enabled=False):
            cosines_KBR = unit_BC.float() @ self.queries.mT
        return cosines_KBR.topk(min(NEAREST, cosines_KBR.shape[2])).values.mean(2).T

    def measure(self, queries: list[Tensor], photos_PC: Tensor) -> None:
        """Keep queries (N, C) of each kind, evenly spaced ones where there are too many; of the photos it
        learns what is usual. Where there are fewer than R, the rest are zeros: near to nothing."""
        rows = self.queries.shape[1]
        self.queries.zero_()
        for kept_RC, asked_NC in zip(self.queries, queries, strict=True):
            chosen = torch.linspace(0, len(asked_NC) - 1, min(rows, len(asked_NC))).round().long()
            kept_RC[: len(chosen)] = asked_NC[chosen.to(asked_NC.device)]
        near_P2 = torch.cat([self.nearness(part) for part in torch.split(photos_PC, _AT_ONCE)])
        self.mean_similarity.copy_(near_P2.mean(0))
        self.measured.fill_(1)


def hubness(config: ModelConfig, modality: Modality) -> Mark | Hubness | None:
    """What the tower of `modality` adds to its vectors, where the configuration has it."""
    if not config.hubness:
        return None
    return Hubness(config.dim, config.hubness) if modality == "photo" else Mark(modality)
