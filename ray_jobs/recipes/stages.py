"""The stages and pairs that recipes are made of. Modules and values marked [A]: docs/method.md."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stbir.config import MODALITIES, Noise, Objective, OptimizerConfig, Pair, Sampling, Stage, Trainable

# The three reference alignments (module 1): the mean of two modalities retrieves the third.
TO_SKETCH = Pair(("photo", "text"), "sketch")
TO_PHOTO = Pair(("text", "sketch"), "photo")
TO_TEXT = Pair(("photo", "sketch"), "text")
# Single-modality queries, as they are used at query time.
SKETCH_TO_PHOTO = Pair(("sketch",), "photo")
TEXT_TO_PHOTO = Pair(("text",), "photo")
PHOTO_TO_TEXT = Pair(("photo",), "text")
QUERIES = (SKETCH_TO_PHOTO, PHOTO_TO_TEXT, TO_PHOTO)
# Intra-modal terms (Sain et al., CVPR 2023, arXiv 2303.13779).
TO_OTHER_SKETCH = Pair(("sketch",), "other_sketch")
TO_WARPED_PHOTO = Pair(("photo",), "warped_photo")
TO_FLIPPED_PHOTO = Pair(("photo",), "flipped_photo")
INTRA_MODAL = (TO_OTHER_SKETCH, TO_WARPED_PHOTO, TO_FLIPPED_PHOTO)

SKETCH, PHOTO, TEXT = Trainable(("sketch",)), Trainable(("photo",)), Trainable(("text",))
SKETCH_NOISE = Noise(start=0, ramp=4, probability=(0.05, 0.7), strength=(0.2, 1.0))
PHOTO_NOISE = Noise(start=2, ramp=6, probability=(0.05, 0.6), strength=(0.2, 1.0))

# Three of four queries, at any severity: the gate needs more corrupted queries than a ramp gives.
CORRUPTED_QUERIES = Noise(start=0, ramp=1, probability=(0.75, 0.75), strength=(1, 1), kind="query")


def pretrain(epochs: int) -> Stage:
    """Photo and text encoder only: the first stage where no pretrained CLIP is available."""
    pairs = Objective((PHOTO_TO_TEXT, TEXT_TO_PHOTO))
    return Stage("pretrain", Trainable(("photo", "text")), pairs, epochs, Sampling(aux=True))


def joint(epochs: int) -> Stage:
    """All encoders together: the anchors of single-encoder stages need encoders that are aligned."""
    return Stage("joint", Trainable(MODALITIES), Objective(QUERIES), epochs, Sampling(sketches="all"))


def pretrain_multi(epochs: int) -> Stage:
    """As `joint`, with auxiliary data sets. One sketch a photo, so that each photo counts once."""
    return replace(joint(epochs), name="pretrain_multi", sampling=Sampling(aux=True))


def fusion(epochs: int) -> Stage:
    """The fusion gate only, from clean and corrupted queries."""
    pairs, sampling = Objective((TO_PHOTO,)), Sampling(sketches="all")
    return Stage("fusion", Trainable(gate=True), pairs, epochs, sampling, CORRUPTED_QUERIES)


def refine(epochs: tuple[int, int, int]) -> tuple[Stage, ...]:
    """The method's three stages for aligned encoders: hard negatives, class term, growing noise.

    Each adds the single-modality query of its trainable encoder to the reference alignment. The noise ramps
    take the same share of a stage as in the reference, whose stages have 8 and 12 epochs.
    """
    sketch, image, text = epochs
    sketch_noise, photo_noise = scaled_ramp(SKETCH_NOISE, sketch / 8), scaled_ramp(PHOTO_NOISE, image / 12)
    every_sketch, one_sketch = Sampling(sketches="all", per_class=2), Sampling(per_class=2)
    return (
        Stage("sketch", SKETCH, _refined(TO_SKETCH, SKETCH_TO_PHOTO), sketch, every_sketch, sketch_noise),
        Stage("image", PHOTO, _refined(TO_PHOTO, SKETCH_TO_PHOTO), image, every_sketch, photo_noise),
        Stage("text", TEXT, _refined(TO_TEXT, PHOTO_TO_TEXT), text, one_sketch),
    )


def _refined(*pairs: Pair) -> Objective:
    return Objective(with_terms(pairs, triplet=0.3, candidates="class"), category=0.05)


def with_terms(pairs: tuple[Pair, ...], **terms: Any) -> tuple[Pair, ...]:
    """The pairs with other weights, temperature or candidates."""
    return tuple(replace(pair, **terms) for pair in pairs)


def with_candidates(stage: Stage, candidates: str) -> Stage:
    """The stage with other candidates of all pairs."""
    pairs = with_terms(stage.objective.pairs, candidates=candidates)
    return replace(stage, objective=replace(stage.objective, pairs=pairs))


def with_sampling(stage: Stage, **changes: Any) -> Stage:
    """The stage with other samples."""
    return replace(stage, sampling=replace(stage.sampling, **changes))


def with_optimizer(
    optimizer: OptimizerConfig, stages: tuple[Stage, ...], lr: Mapping[str, float] | None = None
) -> tuple[Stage, ...]:
    """The stages with that optimizer; `lr` has other learning rates, by stage name."""
    rates = lr or {}
    return tuple(
        replace(stage, optimizer=replace(optimizer, lr=rates.get(stage.name, optimizer.lr)))
        for stage in stages
    )


def scaled_ramp(noise: Noise, ratio: float) -> Noise:
    """The noise for a stage `ratio` times as long."""
    return replace(noise, start=noise.start * ratio, ramp=noise.ramp * ratio)


def with_epochs(stage: Stage, epochs: int) -> Stage:
    """The stage with `epochs` epochs; its noise ramp takes the same share of them."""
    noise = stage.noise and scaled_ramp(stage.noise, epochs / stage.epochs)
    return replace(stage, epochs=epochs, noise=noise)


def with_shared_encoder(stage: Stage) -> Stage:
    """The stage with one encoder for sketches and photos (siamese)."""
    return replace(stage, trainable=replace(stage.trainable, shared=True))


def with_frozen_backbone(stage: Stage) -> Stage:
    """The stage with frozen image backbones, while their projections are trainable.

    Captions alone would teach a pretrained backbone colours at the cost of contours (as in Zhai et al., LiT,
    arXiv 2111.07991, where the whole photo encoder is frozen).
    """
    return replace(stage, trainable=replace(stage.trainable, frozen=("trunk",)))


def with_sketch_corruption(stage: Stage) -> Stage:
    """The stage with sketches corrupted increasingly over its first half (module 3, on strokes)."""
    noise = Noise(0, stage.epochs / 2, (0.1, 0.5), (0.3, 0.8), kind="query", modalities=("sketch",))
    return replace(stage, noise=noise)


def with_text_queries(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages with text-only queries added wherever the photo or text encoder is trainable.

    Without them the photo encoder follows the sketches, and text-only accuracy falls.
    """
    return tuple(
        with_pair(stage, TEXT_TO_PHOTO) if {"photo", "text"} & {*stage.trainable.encoders} else stage
        for stage in stages
    )


def with_pair(stage: Stage, pair: Pair) -> Stage:
    """The stage with one more pair, whose terms are those of its other pairs."""
    first = stage.objective.pairs[0]
    added = replace(first, anchor=pair.anchor, positive=pair.positive)
    return replace(stage, objective=replace(stage.objective, pairs=(*stage.objective.pairs, added)))


def with_half_noise(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages with noise of half the height: what blurs a large image hides the details of a small one."""
    return tuple(replace(stage, noise=stage.noise and _halved(stage.noise)) for stage in stages)


def _halved(noise: Noise) -> Noise:
    (p0, p1), (s0, s1) = noise.probability, noise.strength
    return replace(noise, probability=(p0, p1 / 2), strength=(s0, s1 / 2))


def with_one_sketch(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages with one random sketch a photo and epoch, as in the reference [A]."""
    return tuple(with_sampling(stage, sketches="one") for stage in stages)
