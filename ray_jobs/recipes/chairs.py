"""Recipes for the real chairs (STBIR-C) on a CPU, from ImageNet weights of a MobileNetV2."""

import os
from dataclasses import replace

from ray_jobs.recipes.reference import paper
from ray_jobs.recipes.small import HALF
from ray_jobs.recipes.stages import (
    also_by_text,
    broad,
    clip,
    joint,
    knowing_hubs,
    lasting,
    poorer,
    refine,
    steady_trunk,
    tied,
    weigh,
)
from stbir.config import (
    HUBNESS_DIMS,
    Augment,
    ModelConfig,
    Optimiser,
    PictureTower,
    Preprocess,
    Recipe,
    TextTower,
)

CLIP_RATE = 5e-4  # at the reference's 5e-5, towers that are not aligned yet would stay so for four epochs


def data_root() -> str:
    """Where weights and data sets of this machine lie: STBIR_DATA, or beside the checkout."""
    return os.environ.get("STBIR_DATA", "../shared/data")


def stbir_c_small() -> Recipe:
    """STBIR-C on a CPU: ImageNet MobileNetV2 for both picture towers, and a bag of words for the text.

    Colours and materials have a place of their own in the space. Sketches and photos share a tower in the
    stage before the three of the method, and all towers learn on together after these. The first layers
    of the pictures' stay as they are: they cost most of the time and learn least.
    """
    tower = PictureTower(
        "timm",
        "mobilenetv2_100",
        Preprocess(128, **HALF),
        weights=f"{data_root()}/weights/mobilenetv2_100_imagenet_fp16.safetensors",
        options={"pad_type": "same"},
        frozen=("trunk.conv_stem", "trunk.bn1", "trunk.blocks.0"),
        grid=4,
    )
    text = TextTower("bag", options={"context_length": 24, "vocab_size": 49408}, library="words")
    return Recipe(
        name="stbir_c_small",
        model=ModelConfig(dim=512, photo=tower, sketch=tower, text=text, details=256),
        stages=(
            steady_trunk(clip(4)),
            *also_by_text((tied(broad(6)), *refine((2, 2, 3), (3e-4, 3e-4, 3e-4)), joint(16))),
        ),
        batch=64,
        optimiser=Optimiser(lr=1e-3, weight_decay=0.05, warmup=0.1, final=0.02),
        augment=Augment(scale=0.2, shift=0.1, rotate=10, photo=0.7, words=0.2),
    )


def ours_small() -> Recipe:
    """`stbir_c_small` with cells of an earlier map, poor drawings in its last stage, no favour for hubs (in
    three of as many dimensions), and a gate that learns what a query's sketch and its text are worth."""
    parent = stbir_c_small()
    tower = replace(parent.model.photo, finer=((16, 8),), batch_norm="folded")
    dim = parent.model.dim - HUBNESS_DIMS
    model = replace(parent.model, dim=dim, photo=tower, sketch=tower, gate=32, hubness=1024)
    *before, last = parent.stages
    last = poorer(replace(last, epochs=24))
    return replace(
        parent, name="ours_small", model=model, stages=(*before, last, knowing_hubs(weigh(8, 3e-3)))
    )


def paper_small() -> Recipe:
    """The reference's losses, negatives, noise and optimiser on the weights that `ours_small` starts from.

    One undivided space, a transformer for the text, and before the three stages `clip`, on the same pairs
    as in `ours_small`, for the CLIP that is not at hand.
    """
    reference, ours = paper(), ours_small()
    tower = replace(ours.model.photo, grid=0, finer=(), frozen=())
    options = {"context_length": 24, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 2}
    model = ModelConfig(512, photo=tower, sketch=tower, text=TextTower("small", options=options))
    first = replace(clip(4), lr=CLIP_RATE)
    return replace(reference, name="paper_small", model=model, stages=(first, *reference.stages))


BRIEF_SIZE = 96  # pixels


def ours_brief() -> Recipe:
    """`ours_small` in five CPU minutes on the chairs alone, for comparisons over seeds."""
    epochs = {"clip": 6, "broad": 5, "sketch": 2, "image": 2, "text": 2, "joint": 4, "weigh": 2}
    return _brief(ours_small(), "ours_brief", epochs)


def paper_brief() -> Recipe:
    """`paper_small` in five CPU minutes on the chairs alone: half of each of the reference's stages."""
    return _brief(paper_small(), "paper_brief", {"clip": 6, "sketch": 4, "image": 6, "text": 4})


def _brief(parent: Recipe, name: str, epochs: dict[str, int]) -> Recipe:
    """The same on smaller pictures with other epochs, and noise that grows over as large a share of them."""
    stages = (lasting(stage, epochs[stage.name]) for stage in parent.stages)
    small = replace(parent.model.photo, preprocess=Preprocess(BRIEF_SIZE, **HALF))
    model = replace(parent.model, photo=small, sketch=small)
    return replace(parent, name=name, model=model, stages=tuple(stages))
