"""Recipes for the real chairs (STBIR-C) on a CPU, from ImageNet weights of a MobileNetV2."""

import os
from dataclasses import replace

from ray_jobs.recipes.small import HALF
from ray_jobs.recipes.stages import also_by_text, broad, joint, locked_clip, refine, tied
from stbir.config import Augment, ModelConfig, Optimiser, PictureTower, Preprocess, Recipe, TextTower


def data_root() -> str:
    """Where weights and data sets of this machine lie: STBIR_DATA, or beside the checkout."""
    return os.environ.get("STBIR_DATA", "../shared/data")


def stbir_c_small() -> Recipe:
    """STBIR-C on a CPU: ImageNet MobileNetV2 for both picture towers, a small text tower from scratch.

    The first blocks stay as they are: they cost most of the time at this size and learn least.
    """
    tower = PictureTower(
        "timm",
        "mobilenetv2_100",
        Preprocess(160, **HALF),
        weights=f"{data_root()}/weights/mobilenetv2_100_imagenet_fp16.safetensors",
        options={"pad_type": "same"},
        frozen=("trunk.conv_stem", "trunk.bn1", "trunk.blocks.0", "trunk.blocks.1", "trunk.blocks.2"),
        grid=4,
    )
    text = {"context_length": 24, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 2}
    return Recipe(
        name="stbir_c_small",
        model=ModelConfig(dim=256, photo=tower, sketch=tower, text=TextTower("small", options=text)),
        stages=(
            locked_clip(4),
            tied(broad(10)),
            tied(joint(20)),
            *also_by_text(refine((3, 3, 3), (3e-4, 1e-4, 1e-4))),
        ),
        batch=64,
        optimiser=Optimiser(lr=1e-3, weight_decay=0.05, warmup=0.1, final=0.02),
        augment=Augment(scale=0.2, shift=0.1, rotate=10, photo=0.7, words=0.2),
    )


def stbir_c_brief() -> Recipe:
    """`stbir_c_small` in a few minutes, for comparisons: smaller pictures, fewer epochs."""
    parent = stbir_c_small()
    tower = replace(parent.model.photo, preprocess=replace(parent.model.photo.preprocess, size=128))
    return replace(
        parent,
        name="stbir_c_brief",
        model=replace(parent.model, photo=tower, sketch=tower),
        stages=(locked_clip(2), tied(broad(5)), tied(joint(8)), *parent.stages[3:]),
    )
