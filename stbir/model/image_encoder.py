"""Picture towers: a trunk, what is read from its maps, and the projections of these."""

from typing import Literal

import torch
from torch import Tensor, nn

from stbir.config import ModelConfig, PictureTower
from stbir.errors import InputError
from stbir.model.appearance import Details
from stbir.model.backbones import clip_vision_trunk, making, timm_trunk
from stbir.model.encoders import PictureEncoder
from stbir.model.hubness import hubness
from stbir.model.projection import projection
from stbir.model.spatial_pooling import CellMeans, FinerCells


def picture_encoder(
    tower: PictureTower, config: ModelConfig, pretrained: bool, modality: Literal["sketch", "photo"]
) -> PictureEncoder:
    """The tower of `config`; that of photos with a part for what words tell, where there is one."""
    detailed = modality == "photo" and config.details > 0
    make = timm_trunk if tower.library == "timm" else clip_vision_trunk
    trunk, width = make(tower, pretrained)
    dim = config.dim - config.details
    maps = _maps(trunk, tower) if tower.finer or detailed else []
    picture = PictureEncoder(
        trunk,
        _cells(trunk, tower, dim)
        if tower.grid
        else projection(width, dim, keep=tower.library == "open_clip"),
        tower.preprocess,
        config.dim,
        tower.frozen,
        tower.batch_norm == "fixed",
        _finer(trunk, tower, maps, dim) if tower.finer else (),
        Details([map_BCHW.shape[1] for map_BCHW in maps], config.details) if detailed else None,
        hubness(config, modality),
    )
    # Convolutions run about twice as fast in this layout on CPUs and on tensor cores.
    return picture.to(memory_format=torch.channels_last)


def _cells(trunk: nn.Module, tower: PictureTower, dim: int) -> nn.Module:
    """From the map that the trunk gives to `dim`. Raises InputError where it gives none."""
    with torch.no_grad():
        out = trunk.eval()(_blank(tower))
    if out.ndim != 4:
        raise InputError(f"model: grid: {tower.model!r} gives no feature map; leave grid at 0")
    cells = CellMeans(out.shape[1], tower.grid)
    return nn.Sequential(cells, projection(cells.width, dim, keep=False))


def _finer(trunk: nn.Module, tower: PictureTower, maps: list[Tensor], dim: int) -> list[nn.Module]:
    """From earlier maps to `dim`. Raises InputError where the trunk has none of that stride."""
    strides = [int(level["reduction"]) for level in trunk.feature_info]  # type: ignore[union-attr]
    found: list[nn.Module] = []
    for stride, grid in tower.finer:
        if stride not in strides:
            raise InputError(f"model: finer: no map of stride {stride}; there are {strides}")
        level = strides.index(stride)
        cells = FinerCells(level, maps[level].shape[1], grid)
        found.append(nn.Sequential(cells, projection(cells.width, dim, keep=False)))
    return found


def _maps(trunk: nn.Module, tower: PictureTower) -> list[Tensor]:
    """The maps of the trunk's levels. Raises InputError where it has none of the usual form."""
    with torch.no_grad(), making(f"the maps of {tower.model!r}"):
        last, maps = trunk.eval().forward_intermediates(_blank(tower))  # type: ignore[operator]
        trunk.forward_head(last, pre_logits=True)  # type: ignore[operator]
    return maps  # type: ignore[no-any-return]


def _blank(tower: PictureTower) -> Tensor:
    return torch.zeros(1, 3, tower.preprocess.size, tower.preprocess.size)
