"""Recipes for STBIR-C (QMUL ChairV2) on a CPU, from encoders that are pretrained on other data."""

import os
from dataclasses import replace

from ray_jobs.recipes.reference import reference
from ray_jobs.recipes.small import HALF
from ray_jobs.recipes.stages import (
    fusion,
    joint,
    pretrain,
    pretrain_multi,
    with_epochs,
    with_frozen_backbone,
    with_optimizer,
    with_shared_encoder,
    with_sketch_corruption,
    with_text_queries,
)
from stbir.config import (
    Augmentation,
    ImageEncoderConfig,
    ModelConfig,
    OptimizerConfig,
    Recipe,
    TextEncoderConfig,
)

PRETRAIN_LR = 5e-4  # at the reference's 5e-5, unaligned encoders stay unaligned for four epochs
SIZE, FAST_SIZE = 128, 96  # pixels, in training
SCALES = (0.8, 1.0)


def data_root() -> str:
    """The folder of weights and data sets: STBIR_DATA, or beside the checkout."""
    return os.environ.get("STBIR_DATA", "../shared/data")


def chairs_cpu() -> Recipe:
    """STBIR-C on a CPU: EfficientNet-Lite2 for sketches and photos alike, MiniLM and word vectors for text.

    Appearance has its own dimensions. Sketches and photos share an encoder: on so few photos, the method's
    three stages, which train one each, lose (docs/experiments.md, 2026-12-01). The fusion gate trains last.
    Images are embedded at two scales, of which training uses the smaller (decision 68).
    The scores are corrected for hubness. The first layers and MiniLM stay frozen: they take most of the time
    and gain least.
    """
    image = ImageEncoderConfig(
        "timm",
        "tf_efficientnet_lite2",
        replace(HALF, size=round(SIZE / SCALES[0])),
        weights=f"{data_root()}/weights/tf_efficientnet_lite2_imagenet_fp16.safetensors",
        frozen=("trunk.conv_stem", "trunk.bn1", "trunk.blocks.0", "trunk.blocks.1"),
        batch_norm="folded",
        grid=4,
        multiscale=((16, 8),),
        scales=SCALES,
    )
    text = TextEncoderConfig(
        f"{data_root()}/weights/all-MiniLM-L6-v2", library="hf", frozen=("trunk",), word_vectors=True
    )
    joint_stages = (pretrain_multi(6), with_sketch_corruption(joint(18)))
    stages = (
        with_frozen_backbone(pretrain(4)),
        *with_text_queries(tuple(map(with_shared_encoder, joint_stages))),
        fusion(8),
    )
    optimizer = OptimizerConfig(lr=1e-3, weight_decay=0.05, warmup_ratio=0.1, final_lr_ratio=0.02)
    rates = {"fusion": 3e-3}
    return Recipe(
        name="chairs_cpu",
        model=ModelConfig(512, photo=image, sketch=image, text=text, appearance_dims=256, gate=32),
        stages=with_optimizer(optimizer, stages, rates),
        batch_size=64,
        augmentation=Augmentation(scale=0.2, shift=0.1, rotate=10, photo_ratio=0.7, word_dropout=0.2),
        calibrate=True,
    )


def chairs_cpu_reference() -> Recipe:
    """The reference's losses, negatives, noise and optimizer on the weights that `chairs_cpu` starts from.

    One undivided embedding, and `pretrain` before the three stages, on the same pairs as in `chairs_cpu`, in
    place of CLIP's pretraining.
    """
    parent, image = reference(), chairs_cpu().model.photo
    plain = replace(HALF, size=SIZE)
    image = replace(image, preprocess=plain, scales=(1.0,), grid=0, multiscale=(), frozen=())
    text = replace(chairs_cpu().model.text, word_vectors=False)
    model = ModelConfig(512, photo=image, sketch=image, text=text)
    [first] = with_optimizer(OptimizerConfig(lr=PRETRAIN_LR), (pretrain(4),))
    return replace(parent, name="chairs_cpu_reference", model=model, stages=(first, *parent.stages))


def chairs_cpu_fast() -> Recipe:
    """`chairs_cpu` in five CPU minutes on the chairs alone, for comparisons over seeds."""
    epochs = {"pretrain": 6, "pretrain_multi": 5, "joint": 8, "fusion": 2}
    return _fast(chairs_cpu(), "chairs_cpu_fast", epochs)


def chairs_cpu_reference_fast() -> Recipe:
    """`chairs_cpu_reference` in five CPU minutes on the chairs alone: half of each stage's epochs."""
    epochs = {"pretrain": 6, "sketch": 4, "image": 6, "text": 4}
    return _fast(chairs_cpu_reference(), "chairs_cpu_reference_fast", epochs)


def _fast(parent: Recipe, name: str, epochs: dict[str, int]) -> Recipe:
    """The recipe on smaller images with other epochs; noise ramps take the same share of them."""
    stages = (with_epochs(stage, epochs[stage.name]) for stage in parent.stages)
    image = parent.model.photo
    small = replace(image, preprocess=replace(HALF, size=round(FAST_SIZE / image.scales[0])))
    model = replace(parent.model, photo=small, sketch=small)
    return replace(parent, name=name, model=model, stages=tuple(stages))
