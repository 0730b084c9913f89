"""CLIP models of open_clip as they are: the image encoder also encodes sketches. No training."""

from typing import Any

import open_clip
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from stbir.config import (
    MODALITIES,
    ImageEncoderConfig,
    ModelConfig,
    Objective,
    Pair,
    Preprocess,
    Recipe,
    Stage,
    TextEncoderConfig,
    Trainable,
)
from stbir.errors import InputError
from stbir.model.weights import clip_config, is_pretrained_tag, pretrained_config
from stbir.storage.folder import Folder

CLIP_RECIPE = "clip"
_DEFAULT_SIZE = 224


def clip_recipe(name: str, weights: str | None) -> Recipe:
    """The recipe of an untrained checkpoint of an open_clip model. Its only stage has not run.

    `weights`: a tag of open_clip, a path or a URI; None for random weights. Raises InputError for an unknown
    model or tag, a missing file, and a model without a square image.
    """
    config = clip_config(name)
    if weights and not is_pretrained_tag(weights):
        _require_file(weights)  # before the model is built, which takes a while
    image = ImageEncoderConfig("open_clip", name, _preprocess(name, weights, config), weights=weights)
    pairs = (Pair(("sketch",), "photo"), Pair(("text",), "photo"))
    stage = Stage("joint", Trainable(MODALITIES), Objective(pairs), 1)
    model = ModelConfig(int(config["embed_dim"]), image, TextEncoderConfig(name, weights))
    return Recipe(CLIP_RECIPE, model, (stage,), batch_size=16)


def _require_file(uri: str) -> None:
    folder, _, name = uri.rpartition("/")
    if not Folder(folder or ("/" if uri.startswith("/") else ".")).exists(name):
        raise InputError(f"weights: no file {uri}; give a tag, a path or a URI")


def _preprocess(name: str, weights: str | None, config: dict[str, Any]) -> Preprocess:
    """The model's image size and normalization. Images are padded to a square; open_clip crops them."""
    size = config["vision_cfg"].get("image_size", _DEFAULT_SIZE)
    if not isinstance(size, int):
        if len(set(size)) > 1:
            raise InputError(f"model: {name!r} takes images of {size} pixels; choose one with square images")
        size = size[0]
    mean, std = _normalization(name, weights)
    return Preprocess(int(size), mean=mean, std=std)


def _normalization(name: str, weights: str | None) -> tuple[Any, Any]:
    """Mean and deviation of the tag; those that all tags of the model share for other weights; else OpenAI's.

    SigLIP, for example, has another normalization than CLIP, also in a file.
    """
    default = (tuple(OPENAI_DATASET_MEAN), tuple(OPENAI_DATASET_STD))
    config = pretrained_config(name, weights)
    tags = open_clip.list_pretrained_tags_by_model(name)
    configs = [config] if config else [pretrained_config(name, tag) for tag in tags]
    values = {(tuple(each.get("mean", default[0])), tuple(each.get("std", default[1]))) for each in configs}
    return values.pop() if len(values) == 1 else default
