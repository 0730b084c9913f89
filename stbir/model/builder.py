"""Construction of the model from its configuration; the modules themselves take plain arguments."""

from dataclasses import replace
from typing import Any, Literal, TypeVar, overload

import torch

from stbir.config import ImageEncoderConfig, Modality, ModelConfig, TextEncoderConfig
from stbir.model.backbones import create_pretrained_clip
from stbir.model.encoders import Encoder, ImageEncoder, TextEncoder
from stbir.model.fusion import Gate
from stbir.model.image_encoder import build_image_encoder
from stbir.model.retriever import Retriever
from stbir.model.sentence_backbone import resolve_sentence_options
from stbir.model.text_encoder import build_text_encoder
from stbir.model.weights import clip_config, pretrained_config

EncoderConfig = TypeVar("EncoderConfig", ImageEncoderConfig, TextEncoderConfig)


def build_retriever(config: ModelConfig, seed: int = 0) -> Retriever:
    """The model in eval mode, with pretrained weights where configured, else with random ones from `seed`.

    `config` may name open_clip models; see `resolve`. Raises InputError for unknown names and for
    weights that do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = resolve(config)
        clip = create_pretrained_clip(config.photo, config.text)
        photo = build_image_encoder(config, "photo", True, clip)
        sketch = build_encoder(config, "sketch", pretrained=config.sketch is not None)
        retriever = Retriever(sketch, photo, build_text_encoder(config, True, clip), build_gate(config))
    if config.sketch is None:
        retriever.set_shared_encoder(True)  # then copied: both start with equal weights
        retriever.set_shared_encoder(False)
    return retriever.eval()


def resolve(config: ModelConfig) -> ModelConfig:
    """The configuration with open_clip model names replaced by their options.

    A resolved configuration rebuilds its model without open_clip's registry, so checkpoints store it.
    """
    return replace(
        config,
        photo=_resolve_encoder(config.photo, "vision_cfg", config.dim),
        sketch=config.sketch and _resolve_encoder(config.sketch, "vision_cfg", config.dim),
        text=_resolve_encoder(config.text, "text_cfg", config.dim),
    )


def _resolve_encoder(config: EncoderConfig, section: str, dim: int) -> EncoderConfig:
    if config.library == "open_clip":
        return replace(config, options=_clip_options(config, section, dim))
    if isinstance(config, TextEncoderConfig) and config.library == "hf":
        return replace(config, options=resolve_sentence_options(config))
    return config


def _clip_options(config: ImageEncoderConfig | TextEncoderConfig, section: str, dim: int) -> dict[str, Any]:
    """open_clip's options of one encoder, and `embed_dim` and `quick_gelu`, which apply to both.

    Without `output_tokens`, with which CoCa's encoders also return the tokens that its decoder reads.
    """
    if config.options:
        return {"embed_dim": dim, "quick_gelu": False, **config.options}
    clip = clip_config(config.model)
    gelu = pretrained_config(config.model, config.weights).get("quick_gelu", clip.get("quick_gelu", False))
    options = {name: value for name, value in clip[section].items() if name != "output_tokens"}
    return {**options, "embed_dim": clip["embed_dim"], "quick_gelu": gelu}


@overload
def build_encoder(
    config: ModelConfig, modality: Literal["sketch", "photo"], pretrained: bool = True
) -> ImageEncoder: ...
@overload
def build_encoder(config: ModelConfig, modality: Literal["text"], pretrained: bool = True) -> TextEncoder: ...
@overload
def build_encoder(config: ModelConfig, modality: Modality, pretrained: bool = True) -> Encoder: ...
def build_encoder(config: ModelConfig, modality: Modality, pretrained: bool = True) -> Encoder:
    """One encoder of a resolved configuration. With `pretrained=False` the caller loads the weights."""
    if modality == "text":
        return build_text_encoder(config, pretrained)
    return build_image_encoder(config, modality, pretrained)


def build_gate(config: ModelConfig) -> Gate | None:
    """The fusion gate, if configured. A new gate fuses with the plain mean."""
    return Gate(config.width, config.gate) if config.gate else None
