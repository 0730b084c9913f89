"""Recipe `reference`: the reference configuration [A] of docs/method.md."""

from dataclasses import replace

from ray_jobs.recipes.stages import PHOTO_NOISE, SKETCH_NOISE, TO_PHOTO, TO_SKETCH, TO_TEXT
from stbir.config import ImageEncoderConfig, ModelConfig, Preprocess, Recipe, Stage, TextEncoderConfig

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


def reference() -> Recipe:
    """The reference [A]: CLIP ViT-B/32 and ResNet-50, six stored negatives of the same class a sample."""
    stages = (
        Stage("sketch", ("sketch",), (TO_SKETCH,), 8, noise=SKETCH_NOISE),
        Stage("image", ("photo",), (TO_PHOTO,), 12, noise=PHOTO_NOISE),
        Stage("text", ("text",), (TO_TEXT,), 8),
    )
    return Recipe(
        name="reference",
        model=ModelConfig(
            dim=512,
            photo=ImageEncoderConfig("open_clip", "ViT-B-32", Preprocess(224, **CLIP), weights="openai"),
            sketch=ImageEncoderConfig("timm", "resnet50", Preprocess(224, **IMAGENET), weights="tv_in1k"),
            text=TextEncoderConfig("ViT-B-32", weights="openai"),
        ),
        stages=tuple(replace(stage, negatives="stored", hard_negatives=6) for stage in stages),
        batch_size=16,
    )
