"""Pooling of feature maps over a grid of cells, which keeps the position of features.

The objects of this task are centred on a plain background, so a position identifies a part.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Per cell of the last map: 4 x 4 cells have no more values than a small backbone has channels.
CELL_CHANNELS = 64
MULTISCALE_CELL_CHANNELS = 32  # earlier maps have more cells


class GridPooling(nn.Module):
    """Global mean of a feature map, and CELL_CHANNELS values for each of grid x grid cells."""

    def __init__(self, channels: int, grid: int) -> None:
        super().__init__()
        self.reduce, self.grid = nn.Conv2d(channels, CELL_CHANNELS, 1), grid
        self.width = channels + CELL_CHANNELS * grid * grid

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) → (B, width), width = C + CELL_CHANNELS * grid * grid."""
        cells = F.adaptive_avg_pool2d(self.reduce(map_BCHW), self.grid)
        return torch.cat([map_BCHW.mean((2, 3)), cells.flatten(1)], dim=1)


class MultiscalePooling(nn.Module):
    """Grid pooling of the backbone's earlier feature map number `level`, with layer normalisation.

    The last map has a stride of 32 pixels and describes objects as a whole. Earlier maps describe single
    parts (hypercolumns: Hariharan et al., CVPR 2015, arXiv 1411.5752).
    """

    def __init__(self, level: int, channels: int, grid: int) -> None:
        super().__init__()
        self.level, self.grid = level, grid
        self.width = MULTISCALE_CELL_CHANNELS * grid * grid
        self.reduce, self.norm = nn.Conv2d(channels, MULTISCALE_CELL_CHANNELS, 1), nn.LayerNorm(self.width)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C, H, W) → (B, width), width = MULTISCALE_CELL_CHANNELS * grid * grid."""
        cells = F.adaptive_avg_pool2d(self.reduce(maps[self.level]), self.grid)
        return self.norm(cells.flatten(1))  # type: ignore[no-any-return]
