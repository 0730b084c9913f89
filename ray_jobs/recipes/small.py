"""Recipes for the synthetic data set: encoders from scratch that a CPU trains in seconds or minutes."""

from dataclasses import replace

from ray_jobs.recipes.stages import (
    QUERIES,
    joint,
    pretrain,
    refine,
    with_epochs,
    with_half_noise,
    with_one_sketch,
    with_optimizer,
)
from stbir.config import (
    Augmentation,
    ImageEncoderConfig,
    ModelConfig,
    Objective,
    OptimizerConfig,
    Preprocess,
    Recipe,
    TextEncoderConfig,
)

HALF = Preprocess(32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # x / 127.5 - 1


def smoke() -> Recipe:
    """Random tiny encoders that train in seconds: for tests, continuous integration and a first try."""
    image_options = {"image_size": 32, "patch_size": 8, "layers": 2, "width": 64, "head_width": 32}
    text_options = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    image = ImageEncoderConfig("open_clip", "tiny", HALF, options=image_options)
    stages = with_one_sketch((pretrain(1), *refine((1, 1, 1))))
    return Recipe(
        name="smoke",
        model=ModelConfig(dim=32, photo=image, text=TextEncoderConfig("tiny", options=text_options)),
        stages=with_optimizer(OptimizerConfig(lr=1e-3), stages),
        batch_size=16,
        augmentation=Augmentation(),
    )


def demo() -> Recipe:
    """Small encoders from scratch that learn the synthetic pairs in minutes on a CPU: for `make demo`.

    Sketches alone are the hardest query here, so their pair counts twice. The method's three stages follow
    with small rates, and all encoders together once more, since each stage moves one away from the others.
    """
    image = ImageEncoderConfig("timm", "test_resnet", replace(HALF, size=64), batch_norm="learn")
    options = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
    text = TextEncoderConfig("small", options=options)
    sketch, *others = QUERIES
    together = replace(joint(6), objective=Objective((replace(sketch, nce=2), *others)))
    last = replace(with_epochs(together, 1), name="joint_again")
    refined = with_one_sketch(with_half_noise(refine((1, 1, 1))))
    stages = (*with_one_sketch((pretrain(3),)), together, *refined, last)
    rates = {"sketch": 2e-4, "image": 2e-5, "text": 2e-4, "joint_again": 2e-4}
    optimizer = OptimizerConfig(lr=2e-3, weight_decay=0.05, warmup_ratio=0.1, final_lr_ratio=0.05)
    return Recipe(
        name="demo",
        model=ModelConfig(dim=128, photo=image, sketch=image, text=text),
        stages=with_optimizer(optimizer, stages, rates),
        batch_size=64,
        augmentation=Augmentation(scale=0.1, shift=0.05, rotate=5),
    )
