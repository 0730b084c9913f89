"""Picture towers: a trunk, what is read from its maps, and the projections of these."""

from typing import Literal

import torch
from torch import Tensor, nn

from stbir.config import ImageEncoderConfig, ModelConfig
from stbir.errors import InputError
from stbir.model.appearance import Details
from stbir.model.backbones import clip_image_backbone, making, timm_backbone
from stbir.model.encoders import ImageEncoder
from stbir.model.hubness import hubness
from stbir.model.projection import projection
from stbir.model.spatial_pooling import CellMeans, FinerCells


def image_encoder(
    tower: ImageEncoderConfig, config: ModelConfig, pretrained: bool, modality: Literal["sketch", "photo"]
) -> ImageEncoder:
    """The tower of `config`; that of photos with a part for what words tell, where there is one."""
    detailed = modality == "photo" and config.appearance_dims > 0
    make = timm_backbone if tower.library == "timm" else clip_image_backbone
    trunk, width = make(tower, pretrained)
    dim = config.dim - config.appearance_dims
    maps = _maps(trunk, tower) if tower.multiscale or detailed else []
    picture = ImageEncoder(
        trunk,
        _cells(trunk, tower, dim)
        if tower.grid
        else projection(width, dim, keep=tower.library == "open_clip"),
        tower.preprocess,
        config.dim,
        tower.frozen,
        tower.batch_norm == "fixed",
        _finer(trunk, tower, maps, dim) if tower.multiscale else (),
        Details([map_BCHW.shape[1] for map_BCHW in maps], config.appearance_dims) if detailed else None,
        hubness(config, modality),
    )
    # Convolutions run about twice as fast in this layout on CPUs and on tensor cores.
    return picture.to(memory_format=torch.channels_last)


def _cells(trunk: nn.Module, tower: ImageEncoderConfig, dim: int) -> nn.Module:
    """From the map that the trunk gives to `dim`. Raises InputError where it gives none."""
    with torch.no_grad():
        out = trunk.eval()(_blank(tower))
    if out.ndim != 4:
        raise InputError(f"model: grid: {tower.model!r} gives no feature map; leave grid at 0")
    cells = CellMeans(out.shape[1], tower.grid)
    return nn.Sequential(cells, projection(cells.width, dim, keep=False))


def _finer(trunk: nn.Module, tower: ImageEncoderConfig, maps: list[Tensor], dim: int) -> list[nn.Module]:
    """From earlier maps to `dim`. Raises InputError where the trunk has none of that stride."""
    strides = [int(level["reduction"]) for level in trunk.feature_info]  # type: ignore[union-attr]
    found: list[nn.Module] = []
    for stride, grid in tower.multiscale:
        if stride not in strides:
            raise InputError(f"model: finer: no map of stride {stride}; there are {strides}")
        level = strides.index(stride)
        cells = FinerCells(level, maps[level].shape[1], grid)
        found.append(nn.Sequential(cells, projection(cells.width, dim, keep=False)))
    return found


def _maps(trunk: nn.Module, tower: ImageEncoderConfig) -> list[Tensor]:
    """The maps of the trunk's levels. Raises InputError where it has none of the usual form."""
    with torch.no_grad(), making(f"the maps of {tower.model!r}"):
        last, maps = trunk.eval().forward_intermediates(_blank(tower))  # type: ignore[operator]
        trunk.forward_head(last, pre_logits=True)  # type: ignore[operator]
    return maps  # type: ignore[no-any-return]


def _blank(tower: ImageEncoderConfig) -> Tensor:
    return torch.zeros(1, 3, tower.preprocess.size, tower.preprocess.size)
