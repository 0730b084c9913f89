"""Construction of an image encoder: backbone, pooling of its feature maps, projections."""

from typing import Literal

import torch
from open_clip.model import CustomTextCLIP
from torch import Tensor, nn

from stbir.config import ImageEncoderConfig, ModelConfig
from stbir.errors import InputError
from stbir.model.appearance import AppearanceHead
from stbir.model.backbones import create_clip_image_backbone, create_timm_backbone
from stbir.model.encoders import ImageEncoder
from stbir.model.hubness import build_hubness
from stbir.model.projection import build_projection
from stbir.model.spatial_pooling import GridPooling, MultiscalePooling
from stbir.model.weights import convert_library_errors


def build_image_encoder(
    model_config: ModelConfig,
    modality: Literal["sketch", "photo"],
    pretrained: bool,
    clip: CustomTextCLIP | None = None,
) -> ImageEncoder:
    """The sketch or photo encoder of a resolved configuration. `clip`: its CLIP model, if built."""
    config = model_config.photo if modality == "photo" else model_config.sketch or model_config.photo
    has_appearance = modality == "photo" and model_config.appearance_dims > 0
    if config.library == "timm":
        backbone, width = create_timm_backbone(config, pretrained)
    else:
        backbone, width = create_clip_image_backbone(config, pretrained, clip)
    dim = model_config.dim - model_config.appearance_dims
    maps = _feature_maps(backbone, config) if config.multiscale or has_appearance else []
    channels = [map_BCHW.shape[1] for map_BCHW in maps]
    encoder = ImageEncoder(
        backbone,
        _grid_projection(backbone, config, dim)
        if config.grid
        else build_projection(width, dim, allow_identity=config.library == "open_clip"),
        config.preprocess,
        model_config.dim,
        config.frozen,
        config.batch_norm == "fixed",
        _multiscale_projections(backbone, config, channels, dim) if config.multiscale else (),
        AppearanceHead(channels, model_config.appearance_dims) if has_appearance else None,
        build_hubness(model_config, modality),
        config.scales,
    )
    # Convolutions run about twice as fast in this layout on CPUs and on tensor cores.
    return encoder.to(memory_format=torch.channels_last)


def _grid_projection(backbone: nn.Module, config: ImageEncoderConfig, dim: int) -> nn.Module:
    """Grid pooling of the last feature map, projected to `dim`. Raises InputError if there is no map."""
    with torch.no_grad():
        out = backbone.eval()(_blank_image(config))
    if out.ndim != 4:
        raise InputError(f"model: grid: {config.model!r} returns no feature map; leave grid at 0")
    pooling = GridPooling(out.shape[1], config.grid)
    return nn.Sequential(pooling, build_projection(pooling.width, dim))


def _multiscale_projections(
    backbone: nn.Module, config: ImageEncoderConfig, channels: list[int], dim: int
) -> list[nn.Module]:
    """Projections of earlier feature maps to `dim`. Raises InputError for a stride without a map."""
    strides = [int(level["reduction"]) for level in backbone.feature_info]  # type: ignore[union-attr]
    projections: list[nn.Module] = []
    for stride, grid in config.multiscale:
        if stride not in strides:
            raise InputError(f"model: multiscale: no feature map of stride {stride}; choose from {strides}")
        level = strides.index(stride)
        pooling = MultiscalePooling(level, channels[level], grid)
        projections.append(nn.Sequential(pooling, build_projection(pooling.width, dim)))
    return projections


def _feature_maps(backbone: nn.Module, config: ImageEncoderConfig) -> list[Tensor]:
    """The feature maps of all levels. Raises InputError if the backbone cannot return them."""
    with torch.no_grad(), convert_library_errors(f"the feature maps of {config.model!r}"):
        last, maps = backbone.eval().forward_intermediates(_blank_image(config))  # type: ignore[operator]
        backbone.forward_head(last, pre_logits=True)  # type: ignore[operator]
    return maps  # type: ignore[no-any-return]


def _blank_image(config: ImageEncoderConfig) -> Tensor:
    return torch.zeros(1, 3, config.preprocess.size, config.preprocess.size)
