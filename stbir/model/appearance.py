"""What words tell of a photo, colour and material: read from early layers and from the colours themselves.

The last layer of a trunk that learnt to tell objects apart has all but forgotten the colours of them.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stbir.model.encoders import FULL_SCALE

LEVELS = 4  # of each of red, green and blue
COLOURS = LEVELS**3
TEXTURES = 3  # the earliest maps: how much a channel varies over them tells of a material
GROUND = 0.93  # of full scale: what is brighter in all channels is the white ground of a product's photo
_COLOUR_SCALE = 20.0  # roots of shares are small beside normalised channels


def palette(pixels_B3HW: Tensor) -> Tensor:
    """The square roots of the shares of COLOURS coarse colours in what is not ground, (B, COLOURS).

    Square roots, so that the dot product of two palettes is their Bhattacharyya coefficient.
    """
    level_B3HW = pixels_B3HW.long() * LEVELS // (int(FULL_SCALE) + 1)
    colour_BHW = (level_B3HW[:, 0] * LEVELS + level_B3HW[:, 1]) * LEVELS + level_B3HW[:, 2]
    object_BHW = (pixels_B3HW.amin(1) < GROUND * FULL_SCALE).float()
    counts = torch.zeros(len(pixels_B3HW), COLOURS, device=pixels_B3HW.device)
    counts.scatter_add_(1, colour_BHW.flatten(1), object_BHW.flatten(1))
    return (counts / counts.sum(1, keepdim=True).clamp(min=1)).sqrt()


class Details(nn.Module):
    """The means of feature maps, the deviations of the first TEXTURES of them, and the palette, to `dim`."""

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(sum(channels) + sum(channels[:TEXTURES]) + COLOURS, dim)

    def forward(self, maps: Sequence[Tensor], pixels_B3HW: Tensor) -> Tensor:
        """Maps (B, C, H, W) and the uint8 pixels they are of → (B, dim)."""
        flat = [map_BCHW.flatten(2) for map_BCHW in maps]
        rows = [*map(_means, flat), *map(_deviations, flat[:TEXTURES])]
        return self.linear(torch.cat([*rows, palette(pixels_B3HW) * _COLOUR_SCALE], dim=1))  # type: ignore[no-any-return]


def _means(map_BCN: Tensor) -> Tensor:
    return F.layer_norm(map_BCN.mean(2), map_BCN.shape[1:2])


def _deviations(map_BCN: Tensor) -> Tensor:
    return F.layer_norm(map_BCN.std(2, correction=0), map_BCN.shape[1:2])
