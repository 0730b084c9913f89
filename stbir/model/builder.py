"""From configuration to towers: names are resolved, weights loaded, and nothing below sees a config."""

from dataclasses import replace
from typing import Any, Literal, overload

import open_clip
import torch

from stbir.config import ImageEncoderConfig, Modality, ModelConfig, TextEncoderConfig
from stbir.errors import InputError
from stbir.model.encoders import Encoder, ImageEncoder, TextEncoder
from stbir.model.fusion import Gate
from stbir.model.image_encoder import image_encoder
from stbir.model.retriever import Retriever
from stbir.model.text_encoder import text_encoder
from stbir.model.weights import tag_details


def build(config: ModelConfig, seed: int = 0) -> Retriever:
    """The model with its pretrained weights where the configuration names some, else random from `seed`.

    `config` may name open_clip models; see `resolve`. Raises InputError for unknown names and for
    weights that do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = resolve(config)
        photo = encoder(config, "photo")
        sketch = encoder(config, "sketch", pretrained=config.sketch is not None)
        retriever = Retriever(sketch, photo, encoder(config, "text"), gate(config))
    if config.sketch is None:
        retriever.tie(True)  # what one tower becomes when it is parted
        retriever.tie(False)
    return retriever.eval()


def resolve(config: ModelConfig) -> ModelConfig:
    """The same configuration with open_clip names replaced by what they stand for.

    A resolved configuration rebuilds its model without open_clip's registry: it goes into checkpoints.
    """
    return replace(
        config,
        photo=_resolve_picture(config.photo, config.dim),
        sketch=config.sketch and _resolve_picture(config.sketch, config.dim),
        text=_resolve_text(config.text, config.dim),
    )


def _resolve_text(tower: TextEncoderConfig, dim: int) -> TextEncoderConfig:
    if tower.library == "words":
        return tower
    return replace(tower, options=_resolved(tower, "text_cfg", dim))


def _resolve_picture(tower: ImageEncoderConfig, dim: int) -> ImageEncoderConfig:
    if tower.library == "timm":
        return tower
    return replace(tower, options=_resolved(tower, "vision_cfg", dim))


def _resolved(tower: ImageEncoderConfig | TextEncoderConfig, part: str, dim: int) -> dict[str, Any]:
    """open_clip's options of one tower, with `embed_dim` and `quick_gelu`, which open_clip keeps aside."""
    if tower.options:
        return {"embed_dim": dim, "quick_gelu": False, **tower.options}
    known = open_clip.get_model_config(tower.model)
    if known is None:
        raise InputError(f"model: open_clip has no {tower.model!r}; see open_clip.list_models()")
    gelu = tag_details(tower.model, tower.weights).get("quick_gelu", known.get("quick_gelu", False))
    return {**known[part], "embed_dim": known["embed_dim"], "quick_gelu": gelu}


@overload
def encoder(
    config: ModelConfig, modality: Literal["sketch", "photo"], pretrained: bool = True
) -> ImageEncoder: ...
@overload
def encoder(config: ModelConfig, modality: Literal["text"], pretrained: bool = True) -> TextEncoder: ...
@overload
def encoder(config: ModelConfig, modality: Modality, pretrained: bool = True) -> Encoder: ...
def encoder(config: ModelConfig, modality: Modality, pretrained: bool = True) -> Encoder:
    """One tower of a resolved configuration; `pretrained=False` leaves the weights to the caller."""
    if modality == "text":
        return text_encoder(config, pretrained)
    tower = config.photo if modality == "photo" else config.sketch or config.photo
    return image_encoder(tower, config, pretrained, modality)


def gate(config: ModelConfig) -> Gate | None:
    """What weighs sketch against text, where the configuration has one; it begins as the plain mean."""
    return Gate(config.width, config.gate) if config.gate else None
