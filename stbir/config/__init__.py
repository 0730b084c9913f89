"""What a run is made of: frozen dataclasses, checked when built, written as JSON into the checkpoint.

Config stops at the builders (`model.builder`, `training.stages`): everything below takes plain arguments.
"""

from stbir.config.model import HUBNESS_DIMS, ModelConfig, PictureTower, Preprocess, TextTower
from stbir.config.recipe import Augment, Margins, Noise, Optimiser, Pair, Recipe, Stage, Weights
from stbir.config.values import MODALITIES, PARTS, Modality, Part

__all__ = [
    "HUBNESS_DIMS",
    "MODALITIES",
    "PARTS",
    "Augment",
    "Margins",
    "Modality",
    "ModelConfig",
    "Noise",
    "Optimiser",
    "Pair",
    "Part",
    "PictureTower",
    "Preprocess",
    "Recipe",
    "Stage",
    "TextTower",
    "Weights",
]
