"""Every choice of a run in one place: a recipe is a function that returns one frozen Recipe.

A variant calls its parent and replaces a field. Modules and figures: arXiv 2604.15735; what is marked [A] is
the reference configuration.
"""

import os
from collections.abc import Callable
from dataclasses import replace

from stbir.config import (
    MODALITIES,
    Augment,
    ModelConfig,
    Noise,
    Optimiser,
    Pair,
    PictureTower,
    Preprocess,
    Recipe,
    Stage,
    TextTower,
    Weights,
)
from stbir.errors import InputError

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # x / 127.5 - 1

# The three reference alignments (module 1): the mean of two modalities finds the third.
TO_SKETCH = Pair(("photo", "text"), "sketch")
TO_PHOTO = Pair(("text", "sketch"), "photo")
TO_TEXT = Pair(("photo", "sketch"), "text")
# Each modality by itself, as it is asked at query time.
SKETCH_TO_PHOTO = Pair(("sketch",), "photo")
TEXT_TO_PHOTO = Pair(("text",), "photo")
PHOTO_TO_TEXT = Pair(("photo",), "text")
QUERIES = (SKETCH_TO_PHOTO, PHOTO_TO_TEXT, TO_PHOTO)

NCE_ONLY = Weights(nce=1, triplet=0, category=0)
SKETCH_NOISE = Noise(start=0, ramp=4, probability=(0.05, 0.7), strength=(0.2, 1.0))
PHOTO_NOISE = Noise(start=2, ramp=6, probability=(0.05, 0.6), strength=(0.2, 1.0))


def paper() -> Recipe:
    """The reference [A]: CLIP ViT-B/32 and ResNet-50, six stored negatives of the same class a sample."""
    stages = (
        Stage("sketch", ("sketch",), (TO_SKETCH,), 8, noise=SKETCH_NOISE),
        Stage("image", ("photo",), (TO_PHOTO,), 12, noise=PHOTO_NOISE),
        Stage("text", ("text",), (TO_TEXT,), 8),
    )
    return Recipe(
        name="paper",
        model=ModelConfig(
            dim=512,
            photo=PictureTower("open_clip", "ViT-B-32", Preprocess(224, **CLIP), weights="openai"),
            sketch=PictureTower("timm", "resnet50", Preprocess(224, **IMAGENET), weights="tv_in1k"),
            text=TextTower("ViT-B-32", weights="openai"),
        ),
        stages=tuple(replace(stage, negatives="stored", hard=6) for stage in stages),
        batch=16,
    )


def clip(epochs: int) -> Stage:
    """Photo and text by themselves: the first stage where no pretrained CLIP is at hand."""
    pairs = (PHOTO_TO_TEXT, TEXT_TO_PHOTO)
    return Stage("clip", ("photo", "text"), pairs, epochs, NCE_ONLY, extra=True)


def locked_clip(epochs: int) -> Stage:
    """As `clip`, but the text tower alone learns (Zhai et al., LiT, arXiv 2111.07991).

    For a photo tower that is pretrained: captions first would teach it colours and cost it contours.
    """
    return replace(clip(epochs), learns=("text",))


def joint(epochs: int) -> Stage:
    """All towers at once: towers that are not aligned yet give a stage of one learner no anchor."""
    return Stage("joint", MODALITIES, QUERIES, epochs, NCE_ONLY, sketches="all")


def broad(epochs: int) -> Stage:
    """As `joint`, on the pairs of other data sets too; a photo counts once, however many sketches it has."""
    return replace(joint(epochs), name="broad", sketches="one", extra=True)


def refine(epochs: tuple[int, int, int], lr: tuple[float, float, float]) -> tuple[Stage, ...]:
    """The method's three stages for towers that are aligned: hard negatives, category, growing noise.

    Beside the reference alignment each has the learner's own query, which is also asked alone.
    """
    sketch, image, text = epochs
    stages = (
        Stage(
            "sketch", ("sketch",), (TO_SKETCH, SKETCH_TO_PHOTO), sketch, noise=SKETCH_NOISE, sketches="all"
        ),
        Stage("image", ("photo",), (TO_PHOTO, SKETCH_TO_PHOTO), image, noise=PHOTO_NOISE, sketches="all"),
        Stage("text", ("text",), (TO_TEXT, PHOTO_TO_TEXT), text),
    )
    weights = Weights(nce=1, triplet=0.3, category=0.05)
    return tuple(
        replace(stage, weights=weights, negatives="class", group=2, lr=rate)
        for stage, rate in zip(stages, lr, strict=True)
    )


def also_by_text(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The same, and where photos or words learn, photos are sought by words alone too.

    Else the photo tower follows the sketches, and text alone finds less.
    """
    return tuple(
        stage if "sketch" in stage.learns else replace(stage, pairs=(*stage.pairs, TEXT_TO_PHOTO))
        for stage in stages
    )


def one_sketch(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The same stages with one random sketch a photo and epoch, as in the reference [A]."""
    return tuple(replace(stage, sketches="one") for stage in stages)


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
        stages=one_sketch((clip(3), joint(12), *refine((2, 2, 2), lr=(2e-4, 2e-4, 2e-4)))),
        batch=64,
        optimiser=Optimiser(lr=2e-3, weight_decay=0.05, warmup=0.1, final=0.05),
        augment=Augment(scale=0.1, shift=0.05, rotate=5),
    )


def data_root() -> str:
    """Where weights and data sets of this machine lie: STBIR_DATA, or beside the checkout."""
    return os.environ.get("STBIR_DATA", "../shared/data")


def stbir_c_small() -> Recipe:
    """STBIR-C on a CPU: ImageNet MobileNetV2 for both picture towers, a small text tower from scratch.

    The first blocks stay as they are: they cost most of the time at this size and learn least.
    """
    tower = PictureTower(
        "timm",
        "mobilenetv2_100",
        Preprocess(160, **HALF),
        weights=f"{data_root()}/weights/mobilenetv2_100_imagenet_fp16.safetensors",
        options={"pad_type": "same"},
        frozen=("trunk.conv_stem", "trunk.bn1", "trunk.blocks.0", "trunk.blocks.1", "trunk.blocks.2"),
        grid=4,
    )
    text = {"context_length": 24, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 2}
    return Recipe(
        name="stbir_c_small",
        model=ModelConfig(dim=256, photo=tower, sketch=tower, text=TextTower("small", options=text)),
        stages=(locked_clip(4), broad(10), joint(20), *also_by_text(refine((3, 3, 3), (3e-4, 1e-4, 1e-4)))),
        batch=64,
        optimiser=Optimiser(lr=1e-3, weight_decay=0.05, warmup=0.1, final=0.02),
        augment=Augment(scale=0.2, shift=0.1, rotate=10, photo=0.7, words=0.2),
    )


def stbir_c_brief() -> Recipe:
    """`stbir_c_small` in a few minutes, for comparisons: smaller pictures, fewer epochs."""
    parent = stbir_c_small()
    tower = replace(parent.model.photo, preprocess=replace(parent.model.photo.preprocess, size=128))
    return replace(
        parent,
        name="stbir_c_brief",
        model=replace(parent.model, photo=tower, sketch=tower),
        stages=(locked_clip(2), broad(5), joint(8), *parent.stages[3:]),
    )


def without_curriculum(parent: Recipe) -> Recipe:
    """Module 3 off: no noise."""
    stages = tuple(replace(stage, noise=None) for stage in parent.stages)
    return replace(parent, name=f"{parent.name}_without_curriculum", stages=stages)


def without_category(parent: Recipe) -> Recipe:
    """Module 2 off: no classes, neither in the loss nor in the choice of negatives."""
    stages = tuple(
        replace(stage, weights=replace(stage.weights, category=0.0), negatives="batch", hard=0, group=1)
        for stage in parent.stages
    )
    return replace(parent, name=f"{parent.name}_without_category", stages=stages)


def all_at_once(parent: Recipe) -> Recipe:
    """Module 1 off: after what prepares them, the towers learn together, for as many steps or a few less."""
    kept = tuple(stage for stage in parent.stages if stage.extra)
    merged = [stage for stage in parent.stages if not stage.extra]
    last = replace(
        merged[-1],
        name="all",
        learns=MODALITIES,
        pairs=tuple(dict.fromkeys(pair for stage in merged for pair in stage.pairs)),
        # An epoch of one sketch a photo is a fraction of an epoch of all of them.
        epochs=sum(stage.epochs for stage in merged if stage.sketches == merged[0].sketches),
        noise=next((stage.noise for stage in merged if stage.noise), None),
        sketches=merged[0].sketches,
        lr=None,
    )
    return replace(parent, name=f"{parent.name}_all_at_once", stages=(*kept, last))


PARENTS: tuple[Callable[[], Recipe], ...] = (smoke, demo, stbir_c_small, stbir_c_brief, paper)
ABLATIONS: tuple[Callable[[Recipe], Recipe], ...] = (without_curriculum, without_category, all_at_once)


def names() -> list[str]:
    """Every recipe there is: the parents, and each with one module off."""
    parents = [parent.__name__ for parent in PARENTS]
    return parents + [f"{parent}_{ablation.__name__}" for parent in parents for ablation in ABLATIONS]


def recipe(name: str) -> Recipe:
    """The recipe of that name. Raises InputError for an unknown one."""
    for parent in PARENTS:
        if name == parent.__name__:
            return parent()
        for ablation in ABLATIONS:
            if name == f"{parent.__name__}_{ablation.__name__}":
                return ablation(parent())
    raise InputError(f"--recipe: no {name!r}; there is {', '.join(names())}")
