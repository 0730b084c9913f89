"""Image and text backbones of timm and open_clip, with pretrained weights.

Exceptions of these libraries become InputError.
"""

from typing import Any

import open_clip
import timm
import torch
from open_clip.model import CustomTextCLIP, _build_text_tower, _build_vision_tower
from torch import nn

from stbir.config import ImageEncoderConfig, TextEncoderConfig
from stbir.errors import InputError
from stbir.model.batch_norm_folding import fold_batch_norms
from stbir.model.weights import convert_library_errors, is_pretrained_tag, load_clip_weights, load_strict
from stbir.model.weights_file import read_state_dict

Options = dict[str, Any]


def create_timm_backbone(config: ImageEncoderConfig, pretrained: bool) -> tuple[nn.Module, int]:
    """The backbone and its output width. With a `grid` it returns a feature map instead of a vector."""
    weights = config.weights if pretrained else None
    tag = weights if weights and is_pretrained_tag(weights) else None
    name = f"{config.model}.{tag}" if tag else config.model
    with convert_library_errors(f"timm model {name!r}"):
        options = config.options | ({"global_pool": ""} if config.grid else {})
        backbone = timm.create_model(name, pretrained=tag is not None, num_classes=0, **options)
    if weights and tag is None:
        classifier = backbone.pretrained_cfg.get("classifier") or "head"
        heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        load_strict(backbone, read_state_dict(weights), weights, ignore=heads)
    if config.batch_norm == "folded":
        fold_batch_norms(backbone, torch.rand(1, 3, config.preprocess.size, config.preprocess.size))
    with convert_library_errors(f"timm model {name!r}"):
        return backbone, _output_width(backbone, config.preprocess.size)


def _output_width(backbone: nn.Module, size: int) -> int:
    """C of the output (1, C), (1, C, H, W) or (1, tokens, C) for a blank image.

    timm's `num_features` is another number if layers follow the pooling, as in MobileNetV3.
    """
    backbone.eval()
    with torch.no_grad():
        output = backbone(torch.zeros(1, 3, size, size))
    return int(output.shape[2 if output.ndim == 3 else 1])


def create_pretrained_clip(image: ImageEncoderConfig, text: TextEncoderConfig) -> CustomTextCLIP | None:
    """The complete CLIP model of both resolved configurations; None if their weights are not the same."""
    if not (image.library == text.library == "open_clip" and image.weights):
        return None
    vision, width, gelu = _vision_options(image)
    text_options, *text_rest = _split_options(text.options)
    if (image.model, image.weights, width, gelu) != (text.model, text.weights, *text_rest):
        return None
    return _create_clip(image, width, vision, text_options, gelu)


def create_clip_image_backbone(
    config: ImageEncoderConfig, pretrained: bool, clip: CustomTextCLIP | None = None
) -> tuple[nn.Module, int]:
    """The image backbone of an open_clip model, from resolved options, and its output width.

    clip: the pretrained model, if it has been built already.
    """
    options, width, gelu = _vision_options(config)
    if pretrained and config.weights:
        clip_config = open_clip.get_model_config(config.model) or {}
        text = clip_config.get("text_cfg", {"width": 64, "heads": 1, "layers": 1})
        return (clip or _create_clip(config, width, options, text, gelu)).visual, width
    with convert_library_errors(f"image encoder {config.model!r}"):
        return _build_vision_tower(width, options, gelu), width


def create_clip_text_backbone(
    config: TextEncoderConfig, pretrained: bool, clip: CustomTextCLIP | None = None
) -> tuple[nn.Module, int]:
    """As `create_clip_image_backbone`, the text backbone."""
    options, width, gelu = _split_options(config.options)
    if pretrained and config.weights:
        clip_config = open_clip.get_model_config(config.model)
        if clip_config is None:
            raise InputError(
                f"model.text.weights: {config.model!r} is not an open_clip model; leave them out"
            )
        return (clip or _create_clip(config, width, clip_config["vision_cfg"], options, gelu)).text, width
    with convert_library_errors(f"text encoder {config.model!r}"):
        return _build_text_tower(width, options, gelu), width


def _create_clip(
    config: ImageEncoderConfig | TextEncoderConfig, width: int, vision: Options, text: Options, gelu: bool
) -> CustomTextCLIP:
    """A complete pretrained CLIP model: published weights contain both encoders."""
    with convert_library_errors(config.model):
        model = CustomTextCLIP(width, vision, text, quick_gelu=gelu)
    assert config.weights is not None
    load_clip_weights(model, config.model, config.weights)
    return model


def _vision_options(config: ImageEncoderConfig) -> tuple[Options, int, bool]:
    options, width, gelu = _split_options(config.options)
    return {**options, "image_size": config.preprocess.size}, width, gelu


def _split_options(options: Options) -> tuple[Options, int, bool]:
    backbone_options = dict(options)
    width, gelu = backbone_options.pop("embed_dim"), backbone_options.pop("quick_gelu")
    return backbone_options, int(width), bool(gelu)
