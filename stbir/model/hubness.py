"""Hubness correction (CSLS, Conneau et al., ICLR 2018, arXiv 1710.04087, section 2.3).

It subtracts half of a photo's mean similarity to its nearest queries from the score. The correction is in
extra dimensions, so a score remains a cosine and any index can search it. See docs/decisions/0017.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stbir.config import HUBNESS_DIMS, Modality, ModelConfig

# One extra dimension each; a further one gives all photos the same length before normalisation.
QUERY_MODALITIES: tuple[Modality, ...] = ("sketch", "text")
NUM_NEIGHBOURS = 10  # K of the source
CORRECTION_WEIGHT = 0.5  # of the source
MAX_DEVIATION = 0.2  # of a photo's similarity from the mean; a larger one would scale down the embedding
_CHUNK_SIZE = 4096  # photos compared with all stored queries at a time, to limit memory


class HubnessQueryHead(nn.Module):
    """Appends to a query the weight of the correction, in the dimension of its modality; 0 until measured."""

    share: Tensor

    def __init__(self, modality: Modality, num_dims: int = HUBNESS_DIMS) -> None:
        super().__init__()
        self.num_dims = num_dims
        self._index = QUERY_MODALITIES.index(modality)
        self.register_buffer("share", torch.zeros(()))

    def forward(self, unit_BC: Tensor) -> Tensor:
        """Unit vectors (B, C) → unit vectors (B, C + K), K = `num_dims`."""
        extra_K = torch.zeros(self.num_dims, device=unit_BC.device)
        extra_K[self._index] = -self.share
        return F.normalize(torch.cat([unit_BC, extra_K.expand(unit_BC.shape[0], -1)], dim=1), dim=-1)


class HubnessCorrection(nn.Module):
    """Appends to a photo the deviation of its query similarity from the mean; 0 until measured."""

    queries: Tensor
    mean_similarity: Tensor
    measured: Tensor

    def __init__(self, width: int, num_queries: int, num_dims: int = HUBNESS_DIMS) -> None:
        """`width`: C, of the unit vectors; `num_queries`: R, stored queries of each modality."""
        super().__init__()
        self.num_dims = num_dims
        self.register_buffer("queries", torch.zeros(len(QUERY_MODALITIES), num_queries, width))
        self.register_buffer("mean_similarity", torch.zeros(len(QUERY_MODALITIES)))
        self.register_buffer("measured", torch.zeros(()))

    def forward(self, unit_BC: Tensor) -> Tensor:
        """Unit vectors (B, C) → unit vectors (B, C + K), K = `num_dims`; zero from HUBNESS_DIMS on."""
        deviation_BK = self.query_similarity(unit_BC) - self.mean_similarity
        deviation_BK = deviation_BK.clamp(-MAX_DEVIATION, MAX_DEVIATION)
        squared_length = len(QUERY_MODALITIES) * MAX_DEVIATION**2
        rest_B1 = (squared_length - deviation_BK.square().sum(1, keepdim=True)).clamp(min=0).sqrt()
        extra_BK = torch.cat([deviation_BK, rest_B1], dim=1) * self.measured
        extra_BK = F.pad(extra_BK, (0, self.num_dims - HUBNESS_DIMS))
        return F.normalize(torch.cat([unit_BC, extra_BK], dim=1), dim=-1)

    def query_similarity(self, unit_BC: Tensor, left_out_2BR: Tensor | None = None) -> Tensor:
        """Mean cosine to the NUM_NEIGHBOURS nearest stored queries of each modality, (B, 2).

        A query that is left out counts as an empty row: its cosine is 0.
        """
        with torch.autocast(unit_BC.device.type, enabled=False):
            # Both of three dimensions: OpenVINO's CPU device refuses to broadcast one.
            unit_2BC = unit_BC.float().expand(len(self.queries), *unit_BC.shape)
            cosine_2BR = unit_2BC @ self.queries.mT
        if left_out_2BR is not None:
            cosine_2BR = cosine_2BR.masked_fill(left_out_2BR, 0)
        return cosine_2BR.topk(min(NUM_NEIGHBOURS, cosine_2BR.shape[2])).values.mean(2).T

    def measure(self, queries: list[Tensor], photo_of: list[Tensor], photos_PC: Tensor) -> None:
        """Store queries (N, C) of each modality and the photos' mean similarity to them.

        `photo_of` (N,) is each query's own photo. It is left out, as a search for a new photo has none of
        its own queries here: they would raise the mean. Of more than R queries, R evenly spaced ones are
        stored. With fewer, the remaining rows are zero.
        """
        num_queries = self.queries.shape[1]
        self.queries.zero_()
        photo_2R = torch.full(self.queries.shape[:2], -1, device=photos_PC.device)
        for stored_RC, stored_photo_R, query_NC, photo_N in zip(
            self.queries, photo_2R, queries, photo_of, strict=True
        ):
            chosen = torch.linspace(0, len(query_NC) - 1, min(num_queries, len(query_NC))).round().long()
            chosen = chosen.to(query_NC.device)
            stored_RC[: len(chosen)] = query_NC[chosen]
            stored_photo_R[: len(chosen)] = photo_N[chosen]
        similarity_P2 = torch.cat(
            [
                self.query_similarity(photos_PC[part], photo_2R[:, None] == part[:, None])
                for part in torch.split(torch.arange(len(photos_PC), device=photos_PC.device), _CHUNK_SIZE)
            ]
        )
        self.mean_similarity.copy_(similarity_P2.mean(0))
        self.measured.fill_(1)


def build_hubness(config: ModelConfig, modality: Modality) -> HubnessQueryHead | HubnessCorrection | None:
    """The module that appends the correction to the vectors of one encoder, if configured."""
    if not config.hubness:
        return None
    if modality == "photo":
        return HubnessCorrection(config.dim, config.hubness, config.hubness_dims)
    return HubnessQueryHead(modality, config.hubness_dims)
