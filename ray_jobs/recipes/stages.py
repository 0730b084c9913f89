"""The stages and pairs that recipes are made of. Modules and what is marked [A]: docs/method.md."""

from dataclasses import replace

from stbir.config import MODALITIES, Noise, Pair, Stage, Weights

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

# Three of four queries, of any severity: for the gate, which would see too few poor ones on a ramp.
POOR_QUERIES = Noise(start=0, ramp=1, probability=(0.75, 0.75), strength=(1, 1), kind="query")


def clip(epochs: int) -> Stage:
    """Photo and text by themselves: the first stage where no pretrained CLIP is at hand."""
    pairs = (PHOTO_TO_TEXT, TEXT_TO_PHOTO)
    return Stage("clip", ("photo", "text"), pairs, epochs, NCE_ONLY, extra=True)


def joint(epochs: int) -> Stage:
    """All towers at once: towers that are not aligned yet give a stage of one learner no anchor."""
    return Stage("joint", MODALITIES, QUERIES, epochs, NCE_ONLY, sketches="all")


def broad(epochs: int) -> Stage:
    """As `joint`, on the pairs of other data sets too; a photo counts once, however many sketches it has."""
    return replace(joint(epochs), name="broad", sketches="one", extra=True)


def tied(stage: Stage) -> Stage:
    """The same with one tower for sketches and photos: with few pairs, what it learns holds for both."""
    return replace(stage, tied=True)


def steady_trunk(stage: Stage) -> Stage:
    """The same with the pictures' trunks as they are, while what reads them learns.

    Captions first would teach a pretrained trunk colours and cost it contours (as in Zhai et al., LiT,
    arXiv 2111.07991, where all of the photo tower stands still).
    """
    return replace(stage, still=("trunk",))


def paced(noise: Noise, share: float) -> Noise:
    """The same ramp for a stage `share` times as long."""
    return replace(noise, start=noise.start * share, ramp=noise.ramp * share)


def lasting(stage: Stage, epochs: int) -> Stage:
    """The same for so many epochs, its noise grown over as large a share of them."""
    noise = stage.noise and paced(stage.noise, epochs / stage.epochs)
    return replace(stage, epochs=epochs, noise=noise)


def refine(epochs: tuple[int, int, int], lr: tuple[float, float, float]) -> tuple[Stage, ...]:
    """The method's three stages for towers that are aligned: hard negatives, category, growing noise.

    Beside the reference alignment each has the learner's own query, which is also asked alone. The noise
    grows over as large a share of a stage as in the reference, whose stages have 8 and 12 epochs.
    """
    sketch, image, text = epochs
    sketch_noise, photo_noise = paced(SKETCH_NOISE, sketch / 8), paced(PHOTO_NOISE, image / 12)
    stages = (
        Stage(
            "sketch", ("sketch",), (TO_SKETCH, SKETCH_TO_PHOTO), sketch, noise=sketch_noise, sketches="all"
        ),
        Stage("image", ("photo",), (TO_PHOTO, SKETCH_TO_PHOTO), image, noise=photo_noise, sketches="all"),
        Stage("text", ("text",), (TO_TEXT, PHOTO_TO_TEXT), text),
    )
    weights = Weights(nce=1, triplet=0.3, category=0.05)
    return tuple(
        replace(stage, weights=weights, negatives="class", group=2, lr=rate)
        for stage, rate in zip(stages, lr, strict=True)
    )


def poorer(stage: Stage) -> Stage:
    """The same with sketches that grow poorer over half of it: module 3, as drawings are poor."""
    noise = Noise(0, stage.epochs / 2, probability=(0.1, 0.5), strength=(0.3, 0.8), kind="drawing")
    return replace(stage, noise=noise)


def weigh(epochs: int, lr: float) -> Stage:
    """The gate alone learns, from queries good and poor, how much their sketch and their text are worth."""
    return Stage("weigh", ("gate",), (TO_PHOTO,), epochs, NCE_ONLY, POOR_QUERIES, sketches="all", lr=lr)


def knowing_hubs(stage: Stage) -> Stage:
    """The same, and before it photos learn how near they are to whatever is asked."""
    return replace(stage, hubness=True)


def also_by_text(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The same, and where photos or words learn, photos are sought by words alone too.

    Else the photo tower follows the sketches, and text alone finds less.
    """
    return tuple(
        stage
        if stage.learns in (("sketch",), ("gate",))
        else replace(stage, pairs=(*stage.pairs, TEXT_TO_PHOTO))
        for stage in stages
    )


def faint(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The same with noise of half the height: what blurs a detail of a large picture hides a small one."""
    return tuple(replace(stage, noise=stage.noise and _halved(stage.noise)) for stage in stages)


def _halved(noise: Noise) -> Noise:
    (p0, p1), (s0, s1) = noise.probability, noise.strength
    return replace(noise, probability=(p0, p1 / 2), strength=(s0, s1 / 2))


def one_sketch(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The same stages with one random sketch a photo and epoch, as in the reference [A]."""
    return tuple(replace(stage, sketches="one") for stage in stages)
