"""From configuration to towers: names are resolved, weights loaded, and nothing below sees a config."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, overload

import open_clip
import timm
import torch
from open_clip.model import CustomTextCLIP, _build_text_tower, _build_vision_tower
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import nn

from stbir.config import Modality, ModelConfig, PictureTower, TextTower
from stbir.errors import InputError
from stbir.model.details import Details
from stbir.model.fusion import Gate
from stbir.model.retriever import Retriever
from stbir.model.towers import CellMeans, Encoder, PictureEncoder, TextEncoder, Tokenize
from stbir.model.weights import fit, is_tag, load_clip, read_state, tag_details

PROJECTION_STD = 0.02  # weight N(0, 0.02), bias zero: [A] in docs/method.md
WORD_STD = 0.01


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


def _resolve_text(tower: TextTower, dim: int) -> TextTower:
    if tower.library == "words":
        return tower
    return replace(tower, options=_resolved(tower, "text_cfg", dim))


def _resolve_picture(tower: PictureTower, dim: int) -> PictureTower:
    if tower.library == "timm":
        return tower
    return replace(tower, options=_resolved(tower, "vision_cfg", dim))


def _resolved(tower: PictureTower | TextTower, part: str, dim: int) -> dict[str, Any]:
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
) -> PictureEncoder: ...
@overload
def encoder(config: ModelConfig, modality: Literal["text"], pretrained: bool = True) -> TextEncoder: ...
@overload
def encoder(config: ModelConfig, modality: Modality, pretrained: bool = True) -> Encoder: ...
def encoder(config: ModelConfig, modality: Modality, pretrained: bool = True) -> Encoder:
    """One tower of a resolved configuration; `pretrained=False` leaves the weights to the caller."""
    if modality == "text":
        return _text_encoder(config, pretrained)
    tower = config.photo if modality == "photo" else config.sketch or config.photo
    return _picture_encoder(tower, config, pretrained, detailed=modality == "photo" and config.details > 0)


def gate(config: ModelConfig) -> Gate | None:
    """What weighs sketch against text, where the configuration has one; it begins as the plain mean."""
    return Gate(config.dim, config.gate) if config.gate else None


def _picture_encoder(
    tower: PictureTower, config: ModelConfig, pretrained: bool, detailed: bool
) -> PictureEncoder:
    make = _timm_trunk if tower.library == "timm" else _clip_trunk
    trunk, width = make(tower, pretrained)
    dim = config.dim - config.details
    if tower.grid:
        project = _cell_projection(trunk, tower, dim)
    else:
        project = _projection(width, dim, keep=tower.library == "open_clip")
    details = _details(trunk, tower, config.details) if detailed else None
    fixed = tower.batch_norm == "fixed"
    picture = PictureEncoder(trunk, project, tower.preprocess, config.dim, tower.frozen, fixed, details)
    # Convolutions run about twice as fast in this layout on CPUs and on tensor cores.
    return picture.to(memory_format=torch.channels_last)


def _text_encoder(config: ModelConfig, pretrained: bool) -> TextEncoder:
    tower, dim = config.text, config.details or config.dim
    if tower.library == "words":
        return TextEncoder(_word_bag(tower, dim), nn.Identity(), _tokenizer(tower.options), config.dim)
    options, width, gelu = _split(tower.options)
    if pretrained and tower.weights:
        vision = open_clip.get_model_config(tower.model)
        if vision is None:
            raise InputError(f"model.text.weights: {tower.model!r} is not an open_clip model; leave them out")
        trunk = _whole_clip(tower, width, vision["vision_cfg"], options, gelu).text
    else:
        with _making(f"text tower {tower.model!r}"):
            trunk = _build_text_tower(width, options, gelu)
    return TextEncoder(trunk, _projection(width, dim, keep=True), _tokenizer(options), config.dim)


def _word_bag(tower: TextTower, dim: int) -> nn.Module:
    """Token ids (B, L), 0 for none → (B, dim), the sum of their vectors."""
    with _making(f"text tower {tower.model!r}"):
        if (size := int(tower.options["vocab_size"])) < (least := SimpleTokenizer().vocab_size):
            raise ValueError(f"vocab_size is below the tokenizer's {least}")
        bag = nn.EmbeddingBag(size, dim, mode="sum", padding_idx=0)
    # Words that training does not meet stay this small beside those it does, and so say little.
    nn.init.normal_(bag.weight, std=WORD_STD)
    nn.init.zeros_(bag.weight[0])
    return bag


def _clip_trunk(tower: PictureTower, pretrained: bool) -> tuple[nn.Module, int]:
    options, width, gelu = _split(tower.options)
    options = {**options, "image_size": tower.preprocess.size}
    if pretrained and tower.weights:
        known = open_clip.get_model_config(tower.model) or {}
        text = known.get("text_cfg", {"width": 64, "heads": 1, "layers": 1})
        return _whole_clip(tower, width, options, text, gelu).visual, width
    with _making(f"picture tower {tower.model!r}"):
        return _build_vision_tower(width, options, gelu), width


def _whole_clip(
    tower: PictureTower | TextTower, width: int, vision: dict[str, Any], text: dict[str, Any], gelu: bool
) -> CustomTextCLIP:
    """Published weights come as whole CLIPs; each tower takes its half."""
    with _making(tower.model):
        model = CustomTextCLIP(width, vision, text, quick_gelu=gelu)
    assert tower.weights is not None
    load_clip(model, tower.model, tower.weights)
    return model


def _timm_trunk(tower: PictureTower, pretrained: bool) -> tuple[nn.Module, int]:
    tag = tower.weights if pretrained and tower.weights and is_tag(tower.weights) else None
    name = f"{tower.model}.{tag}" if tag else tower.model
    with _making(f"timm's {name!r}"):
        options = tower.options | ({"global_pool": ""} if tower.grid else {})
        trunk = timm.create_model(name, pretrained=tag is not None, num_classes=0, **options)
    if pretrained and tower.weights and tag is None:
        classifier = trunk.pretrained_cfg.get("classifier") or "head"
        heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        fit(trunk, read_state(tower.weights), tower.weights, ignore=heads)
    return trunk, int(trunk.num_features)


@contextmanager
def _making(what: str) -> Iterator[None]:
    """What the libraries raise for names and options they cannot use, as InputError."""
    try:
        yield
    except (AttributeError, RuntimeError, TypeError, ValueError, OSError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"model: {what} cannot be made: {reason}; check its name and options") from error


def _cell_projection(trunk: nn.Module, tower: PictureTower, dim: int) -> nn.Module:
    """From the map that the trunk gives to `dim`. Raises InputError where it gives none."""
    with torch.no_grad():
        out = trunk.eval()(_blank(tower))
    if out.ndim != 4:
        raise InputError(f"model: grid: {tower.model!r} gives no feature map; leave grid at 0")
    cells = CellMeans(out.shape[1], tower.grid)
    return nn.Sequential(cells, _projection(cells.width, dim, keep=False))


def _details(trunk: nn.Module, tower: PictureTower, dim: int) -> Details:
    """From the maps of the trunk's levels to `dim`. Raises InputError where it has none of the usual form."""
    with torch.no_grad(), _making(f"details of {tower.model!r}"):
        last, maps = trunk.eval().forward_intermediates(_blank(tower))  # type: ignore[operator]
        trunk.forward_head(last, pre_logits=True)  # type: ignore[operator]
    return Details([map_BCHW.shape[1] for map_BCHW in maps], dim)


def _blank(tower: PictureTower) -> torch.Tensor:
    return torch.zeros(1, 3, tower.preprocess.size, tower.preprocess.size)


def _projection(width: int, dim: int, keep: bool) -> nn.Module:
    """Linear(width → dim); the identity where `keep` says an equal width needs none."""
    if keep and width == dim:
        return nn.Identity()
    linear = nn.Linear(width, dim)
    nn.init.normal_(linear.weight, std=PROJECTION_STD)
    nn.init.zeros_(linear.bias)
    return linear


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], int, bool]:
    rest = dict(options)
    return rest, int(rest.pop("embed_dim")), bool(rest.pop("quick_gelu"))


def _tokenizer(options: dict[str, Any]) -> Tokenize:
    length = int(options.get("context_length", 77))
    name = options.get("hf_tokenizer_name")
    tokenize: Tokenize = (
        HFTokenizer(name, context_length=length, **(options.get("tokenizer_kwargs") or {}))
        if name
        else SimpleTokenizer(context_length=length)
    )
    return tokenize
