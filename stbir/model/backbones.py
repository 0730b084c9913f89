"""Trunks from timm and open_clip, with their weights; what these libraries raise becomes InputError."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import open_clip
import timm
import torch
from open_clip.model import CustomTextCLIP, _build_text_tower, _build_vision_tower
from torch import nn

from stbir.config import ImageEncoderConfig, TextEncoderConfig
from stbir.errors import InputError
from stbir.model.batch_norm_folding import fold_batch_norms
from stbir.model.weights import fit, is_tag, load_clip, read_state


def timm_backbone(tower: ImageEncoderConfig, pretrained: bool) -> tuple[nn.Module, int]:
    """The trunk and its width; with a `grid` it gives a map, not a row."""
    tag = tower.weights if pretrained and tower.weights and is_tag(tower.weights) else None
    name = f"{tower.model}.{tag}" if tag else tower.model
    with making(f"timm's {name!r}"):
        options = tower.options | ({"global_pool": ""} if tower.grid else {})
        trunk = timm.create_model(name, pretrained=tag is not None, num_classes=0, **options)
    if pretrained and tower.weights and tag is None:
        classifier = trunk.pretrained_cfg.get("classifier") or "head"
        heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        fit(trunk, read_state(tower.weights), tower.weights, ignore=heads)
    if tower.batch_norm == "folded":
        fold_batch_norms(trunk, torch.rand(1, 3, tower.preprocess.size, tower.preprocess.size))
    return trunk, int(trunk.num_features)


def clip_image_backbone(tower: ImageEncoderConfig, pretrained: bool) -> tuple[nn.Module, int]:
    """The trunk and its width, from the resolved options of a tower of open_clip."""
    options, width, gelu = _split(tower.options)
    options = {**options, "image_size": tower.preprocess.size}
    if pretrained and tower.weights:
        known = open_clip.get_model_config(tower.model) or {}
        text = known.get("text_cfg", {"width": 64, "heads": 1, "layers": 1})
        return _whole_clip(tower, width, options, text, gelu).visual, width
    with making(f"picture tower {tower.model!r}"):
        return _build_vision_tower(width, options, gelu), width


def clip_text_backbone(tower: TextEncoderConfig, pretrained: bool) -> tuple[nn.Module, int]:
    """The trunk and its width, from the resolved options of a tower of open_clip."""
    options, width, gelu = _split(tower.options)
    if pretrained and tower.weights:
        vision = open_clip.get_model_config(tower.model)
        if vision is None:
            raise InputError(f"model.text.weights: {tower.model!r} is not an open_clip model; leave them out")
        return _whole_clip(tower, width, vision["vision_cfg"], options, gelu).text, width
    with making(f"text tower {tower.model!r}"):
        return _build_text_tower(width, options, gelu), width


def _whole_clip(
    tower: ImageEncoderConfig | TextEncoderConfig,
    width: int,
    vision: dict[str, Any],
    text: dict[str, Any],
    gelu: bool,
) -> CustomTextCLIP:
    """Published weights come as whole CLIPs; each tower takes its half."""
    with making(tower.model):
        model = CustomTextCLIP(width, vision, text, quick_gelu=gelu)
    assert tower.weights is not None
    load_clip(model, tower.model, tower.weights)
    return model


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], int, bool]:
    rest = dict(options)
    return rest, int(rest.pop("embed_dim")), bool(rest.pop("quick_gelu"))


@contextmanager
def making(what: str) -> Iterator[None]:
    """What the libraries raise for names and options they cannot use, as InputError."""
    try:
        yield
    except (AttributeError, RuntimeError, TypeError, ValueError, OSError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"model: {what} cannot be made: {reason}; check its name and options") from error
