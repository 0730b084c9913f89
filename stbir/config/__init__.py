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
    LossWeights,
    Noise,
    OptimizerConfig,
    Pair,
    Recipe,
    Stage,
)
from stbir.config.values import MODALITIES, PARTS, Modality, Part

__all__ = [
    "HUBNESS_DIMS",
    "MODALITIES",
    "PARTS",
    "Augmentation",
    "ImageEncoderConfig",
    "LossConstants",
    "LossWeights",
    "Modality",
    "ModelConfig",
    "Noise",
    "OptimizerConfig",
    "Pair",
    "Part",
    "Preprocess",
    "Recipe",
    "Stage",
    "TextEncoderConfig",
]
