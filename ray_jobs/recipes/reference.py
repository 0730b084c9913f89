"""Recipe `reference`: the reference configuration [A] of docs/method.md."""

from ray_jobs.recipes.stages import (
    PHOTO,
    PHOTO_NOISE,
    SKETCH,
    SKETCH_NOISE,
    TEXT,
    TO_PHOTO,
    TO_SKETCH,
    TO_TEXT,
    with_terms,
)
from stbir.config import (
    ImageEncoderConfig,
    ModelConfig,
    Objective,
    Pair,
    Preprocess,
    Recipe,
    Sampling,
    Stage,
    TextEncoderConfig,
)

IMAGENET = Preprocess(224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CLIP = Preprocess(224, mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))


def reference() -> Recipe:
    """The reference [A]: CLIP ViT-B/32 and ResNet-50, six stored negatives of the same class a sample."""
    stored = Sampling(hard_negatives=6)
    stages = (
        Stage("sketch", SKETCH, _objective(TO_SKETCH), 8, stored, SKETCH_NOISE),
        Stage("image", PHOTO, _objective(TO_PHOTO), 12, stored, PHOTO_NOISE),
        Stage("text", TEXT, _objective(TO_TEXT), 8, stored),
    )
    return Recipe(
        name="reference",
        model=ModelConfig(
            dim=512,
            photo=ImageEncoderConfig("open_clip", "ViT-B-32", CLIP, weights="openai"),
            sketch=ImageEncoderConfig("timm", "resnet50", IMAGENET, weights="tv_in1k"),
            text=TextEncoderConfig("ViT-B-32", weights="openai"),
        ),
        stages=stages,
        batch_size=16,
    )


def _objective(pair: Pair) -> Objective:
    return Objective(with_terms((pair,), nce=0.8, triplet=0.7, candidates="hard"), category=0.2)
