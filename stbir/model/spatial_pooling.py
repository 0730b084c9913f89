"""Feature maps as rows that say where in the picture something is.

The objects of this task stand in the middle of a plain ground: where a part is says which one it is.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Numbers a cell of the last map: those of 4 x 4 cells are no more than the channels of a small trunk.
CELL = 64
FINER_CELL = 32  # of an earlier map, which has more cells


class CellMeans(nn.Module):
    """A feature map as one row: its mean, and CELL numbers for each of grid x grid cells."""

    def __init__(self, channels: int, grid: int) -> None:
        super().__init__()
        self.reduce, self.grid = nn.Conv2d(channels, CELL, 1), grid
        self.width = channels + CELL * grid * grid

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) → (B, width), width = C + CELL * grid * grid."""
        cells = F.adaptive_avg_pool2d(self.reduce(map_BCHW), self.grid)
        return torch.cat([map_BCHW.mean((2, 3)), cells.flatten(1)], dim=1)


class FinerCells(nn.Module):
    """The same of the trunk's map `level`, an earlier one, normalised: what is projected beside the last.

    Deep features are coarse, a 32nd of the picture's side, and of objects as a whole: which leg, which slat
    is in those before them (hypercolumns: Hariharan et al., CVPR 2015, arXiv 1411.5752).
    """

    def __init__(self, level: int, channels: int, grid: int) -> None:
        super().__init__()
        self.level, self.grid = level, grid
        self.width = FINER_CELL * grid * grid
        self.reduce, self.norm = nn.Conv2d(channels, FINER_CELL, 1), nn.LayerNorm(self.width)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C, H, W) → (B, width), width = FINER_CELL * grid * grid."""
        cells = F.adaptive_avg_pool2d(self.reduce(maps[self.level]), self.grid)
        return self.norm(cells.flatten(1))  # type: ignore[no-any-return]
