"""Recipe dataclasses, checked when they are built, and their JSON form.

Builders (`model.builder`, `training.stages`) read the config; modules below them take plain arguments.
"""

from stbir.config.model import (
    HUBNESS_DIMS,
    ImageEncoderConfig,
    ModelConfig,
    Preprocess,
    TextEncoderConfig,
)
from stbir.config.recipe import (
    Augmentation,
    LossConstants,
    Recipe,
    StrokeAugmentation,
)
from stbir.config.stage import Noise, Objective, OptimizerConfig, Pair, Sampling, Stage, Trainable
from stbir.config.values import MODALITIES, MODALITY_OF, PARTS, VIEWS, Input, Modality, Part, View

__all__ = [
    "HUBNESS_DIMS",
    "MODALITIES",
    "MODALITY_OF",
    "PARTS",
    "VIEWS",
    "Augmentation",
    "ImageEncoderConfig",
    "Input",
    "LossConstants",
    "Modality",
    "ModelConfig",
    "Noise",
    "Objective",
    "OptimizerConfig",
    "Pair",
    "Part",
    "Preprocess",
    "Recipe",
    "Sampling",
    "Stage",
    "StrokeAugmentation",
    "TextEncoderConfig",
    "Trainable",
    "View",
]
