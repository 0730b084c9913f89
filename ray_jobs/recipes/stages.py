"""The stages and pairs that recipes are made of. Modules and values marked [A]: docs/method.md."""

from dataclasses import replace

from stbir.config import MODALITIES, LossWeights, Noise, Pair, Stage

# The three reference alignments (module 1): the mean of two modalities retrieves the third.
TO_SKETCH = Pair(("photo", "text"), "sketch")
TO_PHOTO = Pair(("text", "sketch"), "photo")
TO_TEXT = Pair(("photo", "sketch"), "text")
# Single-modality queries, as they are used at query time.
SKETCH_TO_PHOTO = Pair(("sketch",), "photo")
TEXT_TO_PHOTO = Pair(("text",), "photo")
PHOTO_TO_TEXT = Pair(("photo",), "text")
QUERIES = (SKETCH_TO_PHOTO, PHOTO_TO_TEXT, TO_PHOTO)

NCE_ONLY = LossWeights(nce=1, triplet=0, category=0)
SKETCH_NOISE = Noise(start=0, ramp=4, probability=(0.05, 0.7), strength=(0.2, 1.0))
PHOTO_NOISE = Noise(start=2, ramp=6, probability=(0.05, 0.6), strength=(0.2, 1.0))

# Three of four queries, at any severity: the gate needs more corrupted queries than a ramp gives.
CORRUPTED_QUERIES = Noise(start=0, ramp=1, probability=(0.75, 0.75), strength=(1, 1), kind="query")


def pretrain(epochs: int) -> Stage:
    """Photo and text encoder only: the first stage where no pretrained CLIP is available."""
    pairs = (PHOTO_TO_TEXT, TEXT_TO_PHOTO)
    return Stage("pretrain", ("photo", "text"), pairs, epochs, NCE_ONLY, aux=True)


def joint(epochs: int) -> Stage:
    """All encoders together: the anchors of single-encoder stages need encoders that are aligned."""
    return Stage("joint", MODALITIES, QUERIES, epochs, NCE_ONLY, sketches="all")


def pretrain_multi(epochs: int) -> Stage:
    """As `joint`, with auxiliary data sets. One sketch a photo, so that each photo counts once."""
    return replace(joint(epochs), name="pretrain_multi", sketches="one", aux=True)


def fusion(epochs: int, lr: float) -> Stage:
    """The fusion gate only, from clean and corrupted queries."""
    noise = CORRUPTED_QUERIES
    return Stage("fusion", ("gate",), (TO_PHOTO,), epochs, NCE_ONLY, noise, sketches="all", lr=lr)


def refine(epochs: tuple[int, int, int], lr: tuple[float, float, float]) -> tuple[Stage, ...]:
    """The method's three stages for aligned encoders: hard negatives, class term, growing noise.

    Each adds the single-modality query of its trainable encoder to the reference alignment. The noise ramps
    take the same share of a stage as in the reference, whose stages have 8 and 12 epochs.
    """
    sketch, image, text = epochs
    sketch_noise, photo_noise = scaled_ramp(SKETCH_NOISE, sketch / 8), scaled_ramp(PHOTO_NOISE, image / 12)
    to_sketch, to_photo = (TO_SKETCH, SKETCH_TO_PHOTO), (TO_PHOTO, SKETCH_TO_PHOTO)
    stages = (
        Stage("sketch", ("sketch",), to_sketch, sketch, noise=sketch_noise, sketches="all"),
        Stage("image", ("photo",), to_photo, image, noise=photo_noise, sketches="all"),
        Stage("text", ("text",), (TO_TEXT, PHOTO_TO_TEXT), text),
    )
    weights = LossWeights(nce=1, triplet=0.3, category=0.05)
    return tuple(
        replace(stage, weights=weights, negatives="class", per_class=2, lr=rate)
        for stage, rate in zip(stages, lr, strict=True)
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
    return replace(stage, shared_encoder=True)


def with_frozen_backbone(stage: Stage) -> Stage:
    """The stage with frozen image backbones, while their projections are trainable.

    Captions alone would teach a pretrained backbone colours at the cost of contours (as in Zhai et al., LiT,
    arXiv 2111.07991, where the whole photo encoder is frozen).
    """
    return replace(stage, frozen=("trunk",))


def with_sketch_corruption(stage: Stage) -> Stage:
    """The stage with sketches corrupted increasingly over its first half (module 3, on strokes)."""
    noise = Noise(0, stage.epochs / 2, probability=(0.1, 0.5), strength=(0.3, 0.8), kind="drawing")
    return replace(stage, noise=noise)


def with_hubness(stage: Stage) -> Stage:
    """The stage with hubness correction measured before its first step."""
    return replace(stage, hubness=True)


def with_text_queries(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages with text-only queries added wherever the photo or text encoder is trainable.

    Without them the photo encoder follows the sketches, and text-only accuracy falls.
    """
    return tuple(
        stage
        if stage.trainable in (("sketch",), ("gate",))
        else replace(stage, pairs=(*stage.pairs, TEXT_TO_PHOTO))
        for stage in stages
    )


def with_half_noise(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages with noise of half the height: what blurs a large image hides the details of a small one."""
    return tuple(replace(stage, noise=stage.noise and _halved(stage.noise)) for stage in stages)


def _halved(noise: Noise) -> Noise:
    (p0, p1), (s0, s1) = noise.probability, noise.strength
    return replace(noise, probability=(p0, p1 / 2), strength=(s0, s1 / 2))


def with_one_sketch(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages with one random sketch a photo and epoch, as in the reference [A]."""
    return tuple(replace(stage, sketches="one") for stage in stages)
