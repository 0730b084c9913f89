"""Recipes with one encoder for sketches and photos (siamese, Yu et al., CVPR 2016)."""

from dataclasses import replace

from ray_jobs.recipes.reference import CLIP, IMAGENET
from ray_jobs.recipes.stages import (
    SKETCH_TO_PHOTO,
    TEXT_TO_PHOTO,
    TO_PHOTO,
    with_optimizer,
    with_shared_encoder,
    with_terms,
)
from stbir.config import (
    MODALITIES,
    Augmentation,
    ImageEncoderConfig,
    ModelConfig,
    Objective,
    OptimizerConfig,
    Recipe,
    Sampling,
    Stage,
    TextEncoderConfig,
    Trainable,
)

PHOTO_QUERIES = (SKETCH_TO_PHOTO, TEXT_TO_PHOTO, TO_PHOTO)


def shared_encoder() -> Recipe:
    """ConvNeXt-Small of ImageNet."""
    preprocess = replace(IMAGENET, resize="stretch")
    image = ImageEncoderConfig("timm", "convnext_small", preprocess, weights="fb_in1k")
    return _shared("shared_encoder", image)


def shared_encoder_resnet50() -> Recipe:
    """ResNet-50 of ImageNet."""
    preprocess = replace(IMAGENET, resize="stretch")
    image = ImageEncoderConfig("timm", "resnet50", preprocess, weights="tv_in1k")
    return _shared("shared_encoder_resnet50", image)


def shared_encoder_clip() -> Recipe:
    """The image encoder of CLIP ViT-B/32."""
    preprocess = replace(CLIP, resize="stretch")
    image = ImageEncoderConfig("open_clip", "ViT-B-32", preprocess, weights="openai")
    return _shared("shared_encoder_clip", image)


def _shared(name: str, image: ImageEncoderConfig) -> Recipe:
    """One stage on every kind of query: symmetric InfoNCE over the batch, τ = 0.05, stretched images.

    Values for sketches alone: github.com/Emil-Demic/ConvNetModel, the highest Acc@1 found for ChairV2. There
    stretching exceeds padding, and one encoder exceeds two.
    """
    pairs = with_terms(PHOTO_QUERIES, temperature=0.05, symmetric=True)
    stage = Stage("joint", Trainable(MODALITIES), Objective(pairs), 30, Sampling(sketches="all"))
    optimizer = OptimizerConfig(lr=1e-4, warmup_ratio=0.05, final_lr_ratio=0.05)
    return Recipe(
        name=name,
        model=ModelConfig(512, photo=image, text=TextEncoderConfig("ViT-B-32", weights="openai")),
        stages=with_optimizer(optimizer, (with_shared_encoder(stage),)),
        batch_size=64,
        augmentation=Augmentation(),
    )
