"""Appearance features of a photo: colour and material, from early feature maps and a colour histogram.

The last feature map of a backbone trained on object classes holds little colour information.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stbir.model.encoders import FULL_SCALE

LEVELS_PER_CHANNEL = 4
NUM_COLOURS = LEVELS_PER_CHANNEL**3
NUM_TEXTURE_MAPS = 3  # the first maps, whose standard deviations describe the material
BACKGROUND_LEVEL = 0.93  # of full scale; brighter in all channels is the white background of product photos
_COLOUR_SCALE = 20.0  # square roots of shares are small compared with normalised channels


def colour_histogram(pixels_B3HW: Tensor) -> Tensor:
    """Square roots of the shares of NUM_COLOURS coarse colours outside the background, (B, NUM_COLOURS).

    The dot product of two such histograms is their Bhattacharyya coefficient.
    """
    levels = LEVELS_PER_CHANNEL
    level_B3HW = pixels_B3HW.long() * levels // (int(FULL_SCALE) + 1)
    colour_BHW = (level_B3HW[:, 0] * levels + level_B3HW[:, 1]) * levels + level_B3HW[:, 2]
    foreground_BHW = (pixels_B3HW.amin(1) < BACKGROUND_LEVEL * FULL_SCALE).float()
    # `shape`, as `len` would fix the batch size of an exported graph.
    counts = torch.zeros(pixels_B3HW.shape[0], NUM_COLOURS, device=pixels_B3HW.device)
    counts.scatter_add_(1, colour_BHW.flatten(1), foreground_BHW.flatten(1))
    return (counts / counts.sum(1, keepdim=True).clamp(min=1)).sqrt()


class AppearanceHead(nn.Module):
    """Linear layer from map means, deviations of the first NUM_TEXTURE_MAPS maps, and colours to `dim`."""

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(sum(channels) + sum(channels[:NUM_TEXTURE_MAPS]) + NUM_COLOURS, dim)

    def forward(self, maps: Sequence[Tensor], pixels_B3HW: Tensor) -> Tensor:
        """Feature maps (B, C, H, W) and the uint8 pixels they were computed from → (B, dim)."""
        flat = [map_BCHW.flatten(2) for map_BCHW in maps]
        parts = [*map(_means, flat), *map(_deviations, flat[:NUM_TEXTURE_MAPS])]
        colours = colour_histogram(pixels_B3HW) * _COLOUR_SCALE
        return self.linear(torch.cat([*parts, colours], dim=1))  # type: ignore[no-any-return]


def _means(map_BCN: Tensor) -> Tensor:
    return F.layer_norm(map_BCN.mean(2), map_BCN.shape[1:2])


def _deviations(map_BCN: Tensor) -> Tensor:
    return F.layer_norm(map_BCN.std(2, correction=0), map_BCN.shape[1:2])
