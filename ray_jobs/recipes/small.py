"""Recipes for drawn pairs: towers from scratch that a CPU trains in seconds or minutes."""

from ray_jobs.recipes.stages import clip, faint, joint, one_sketch, refine
from stbir.config import Augment, ModelConfig, Optimiser, PictureTower, Preprocess, Recipe, TextTower

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # x / 127.5 - 1


def smoke() -> Recipe:
    """Random tiny towers: trains in seconds on synthetic pairs; tests, CI and newcomers."""
    picture = {"image_size": 32, "patch_size": 8, "layers": 2, "width": 64, "head_width": 32}
    text = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    tower = PictureTower("open_clip", "tiny", Preprocess(32, **HALF), options=picture)
    return Recipe(
        name="smoke",
        model=ModelConfig(dim=32, photo=tower, text=TextTower("tiny", options=text)),
        stages=one_sketch((clip(1), *refine((1, 1, 1), lr=(1e-3, 1e-3, 1e-3)))),
        batch=16,
        optimiser=Optimiser(lr=1e-3),
        augment=Augment(),
    )


def demo() -> Recipe:
    """Small towers from scratch that learn the drawn pairs in minutes on a CPU: what `make demo` trains."""
    tower = PictureTower("timm", "test_resnet", Preprocess(64, **HALF), batch_norm="learn")
    text = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
    return Recipe(
        name="demo",
        model=ModelConfig(dim=128, photo=tower, sketch=tower, text=TextTower("small", options=text)),
        stages=one_sketch((clip(3), joint(12), *faint(refine((2, 2, 2), lr=(2e-4, 2e-4, 2e-4))))),
        batch=64,
        optimiser=Optimiser(lr=2e-3, weight_decay=0.05, warmup=0.1, final=0.05),
        augment=Augment(scale=0.1, shift=0.05, rotate=5),
    )
