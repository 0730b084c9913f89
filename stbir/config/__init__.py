"""Recipe dataclasses, checked when they are built, and their JSON form.

Config stops at the builders (`model.builder`, `training.stages`): code below them takes plain arguments.
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
