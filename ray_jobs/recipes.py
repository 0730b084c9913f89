"""Every choice of a run in one place: a recipe is a function that returns one frozen Recipe.

A variant calls its parent and replaces a field.
"""

import os
from collections.abc import Callable
from dataclasses import replace

from stbir.config import (
    Augment,
    ModelConfig,
    Noise,
    Optimiser,
    Pair,
    PictureTower,
    Preprocess,
    Recipe,
    Stage,
    TextTower,
    Weights,
)
from stbir.errors import InputError

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # x / 127.5 - 1

# The three reference alignments (method: module 1): the mean of two modalities finds the third.
TO_SKETCH = Pair(("photo", "text"), "sketch")
TO_PHOTO = Pair(("text", "sketch"), "photo")
TO_TEXT = Pair(("photo", "sketch"), "text")
CLIP_PAIRS = (Pair(("photo",), "text"), Pair(("text",), "photo"))
SKETCH_NOISE = Noise(start=0, ramp=4, probability=(0.05, 0.7), strength=(0.2, 1.0))
PHOTO_NOISE = Noise(start=2, ramp=6, probability=(0.05, 0.6), strength=(0.2, 1.0))


def paper() -> Recipe:
    """The reference: CLIP ViT-B/32 and ResNet-50, figures of method.md [A] (arXiv 2604.15735)."""
    stages = (
        Stage("sketch", ("sketch",), (TO_SKETCH,), 8, noise=SKETCH_NOISE),
        Stage("image", ("photo",), (TO_PHOTO,), 12, noise=PHOTO_NOISE),
        Stage("text", ("text",), (TO_TEXT,), 8),
    )
    return Recipe(
        name="paper",
        model=ModelConfig(
            dim=512,
            photo=PictureTower("open_clip", "ViT-B-32", Preprocess(224, **CLIP), weights="openai"),
            sketch=PictureTower("timm", "resnet50", Preprocess(224, **IMAGENET), weights="tv_in1k"),
            text=TextTower("ViT-B-32", weights="openai"),
        ),
        stages=tuple(replace(stage, negatives="stored", hard=6) for stage in stages),
        batch=16,
    )


def smoke() -> Recipe:
    """Random tiny towers: trains in seconds on synthetic pairs; tests, CI and newcomers."""
    picture = {"image_size": 32, "patch_size": 8, "layers": 2, "width": 64, "head_width": 32}
    text = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    tower = PictureTower("open_clip", "tiny", Preprocess(32, **HALF), options=picture)
    return Recipe(
        name="smoke",
        model=ModelConfig(dim=32, photo=tower, text=TextTower("tiny", options=text)),
        stages=(
            Stage("clip", ("photo", "text"), CLIP_PAIRS, 1, Weights(nce=1, triplet=0, category=0)),
            Stage("sketch", ("sketch",), (TO_SKETCH,), 1, noise=SKETCH_NOISE, group=2),
            Stage("image", ("photo",), (TO_PHOTO,), 1, noise=PHOTO_NOISE, group=2),
            Stage("text", ("text",), (TO_TEXT,), 1, group=2),
        ),
        batch=16,
        optimiser=Optimiser(lr=1e-3),
        augment=Augment(),
    )


def data_root() -> str:
    """Where weights and data sets of this machine lie: STBIR_DATA, or beside the checkout."""
    return os.environ.get("STBIR_DATA", "../shared/data")


def stbir_c_small() -> Recipe:
    """STBIR-C on a CPU: MobileNetV2 for both picture towers, a small text tower from scratch."""
    tower = PictureTower(
        "timm",
        "mobilenetv2_100",
        Preprocess(160, **HALF),
        weights=f"{data_root()}/weights/mobilenetv2_100_imagenet_fp16.safetensors",
        options={"pad_type": "same"},
        frozen=("trunk.conv_stem", "trunk.bn1", "trunk.blocks.0", "trunk.blocks.1"),
    )
    text = {"context_length": 24, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 2}
    joint = (Pair(("sketch",), "photo"), Pair(("photo",), "text"), TO_PHOTO)
    return Recipe(
        name="stbir_c_small",
        model=ModelConfig(dim=256, photo=tower, sketch=tower, text=TextTower("small", options=text)),
        stages=(
            Stage("clip", ("photo", "text"), CLIP_PAIRS, 6, Weights(nce=1, triplet=0, category=0)),
            Stage("joint", ("sketch", "photo", "text"), joint, 10, sketches="all"),
        ),
        batch=64,
        optimiser=Optimiser(lr=1e-3, weight_decay=0.05, warmup=0.1, final=0.05, trunk=0.3),
        augment=Augment(),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    function.__name__: function for function in (smoke, stbir_c_small, paper)
}


def recipe(name: str) -> Recipe:
    """The recipe of that name. Raises InputError for an unknown one."""
    if name not in RECIPES:
        raise InputError(f"--recipe: no {name!r}; there is {', '.join(sorted(RECIPES))}")
    return RECIPES[name]()
