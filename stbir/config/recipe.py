"""Recipe dataclasses: everything that decides a training run except its data and its machines."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from stbir.config.model import ModelConfig
from stbir.config.values import MODALITIES, STRICT, Count, Fraction, Modality, NotNegative, Part, Positive


@dataclass(frozen=True, config=STRICT)
class Pair:
    """One alignment: the normalised mean of the `anchor` modalities retrieves `positive`."""

    anchor: Annotated[tuple[Modality, ...], Field(min_length=1)]
    positive: Modality
    weight: Positive = 1.0


@dataclass(frozen=True, config=STRICT)
class Noise:
    """A linear ramp of probability and strength over the epochs of a stage (docs/method.md, module 3).

    kind: "pixels" is the reference's noise on the images of trainable encoders. "query" corrupts sketches and
        captions (`augmentation.query_corruption`) of trainable encoders, or those the gate learns from, with
        any severity up to the strength. "drawing" does so for sketches only.
    """

    start: NotNegative
    ramp: Positive
    probability: tuple[Fraction, Fraction]
    strength: tuple[Fraction, Fraction]
    kind: Literal["pixels", "query", "drawing"] = "pixels"


# The modalities that each kind of noise applies to.
NOISE_MODALITIES: dict[str, tuple[Modality, ...]] = {
    "pixels": ("sketch", "photo"),
    "query": ("sketch", "text"),
    "drawing": ("sketch",),
}


@dataclass(frozen=True, config=STRICT)
class LossWeights:
    """Weights of the loss terms. A term of weight 0 is not computed."""

    nce: NotNegative = 0.8
    triplet: NotNegative = 0.7
    category: NotNegative = 0.2

    @model_validator(mode="after")
    def _require_alignment(self) -> "LossWeights":
        if self.nce == self.triplet == 0:
            raise ValueError("nce and triplet are both 0: no term would align the encoders; set one above 0")
        return self


@dataclass(frozen=True, config=STRICT)
class Stage:
    """One training stage: trainable parts, pairs, epochs. Encoders not in `trainable` are frozen entirely.

    sketches: one random sketch a photo and epoch, or all of them.
    negatives: "batch" takes every other instance of the global batch; "class" does the same, but the triplet
        term takes those of the same class; "stored" takes only `hard_negatives` sampled from the same class.
    per_class: photos of one class placed side by side in the order, so that a batch holds hard negatives.
    aux: photos of auxiliary data sets take part.
    shared_encoder: the photo encoder encodes sketches too (siamese, Yu et al., CVPR 2016). A later stage
        without it continues from two equal encoders.
    frozen: parameter prefixes of the image encoders that stay frozen in this stage, in addition to the
        encoders' own.
    hubness: hubness correction is measured before the first step; no encoder is trainable from then on.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    trainable: Annotated[tuple[Part, ...], Field(min_length=1)]
    pairs: Annotated[tuple[Pair, ...], Field(min_length=1)]
    epochs: Count
    weights: LossWeights = LossWeights()
    noise: Noise | None = None
    sketches: Literal["one", "all"] = "one"
    negatives: Literal["batch", "class", "stored"] = "batch"
    hard_negatives: Annotated[int, Field(ge=0)] = 0
    per_class: Count = 1
    aux: bool = False
    shared_encoder: bool = False
    frozen: tuple[str, ...] = ()
    hubness: bool = False
    lr: Positive | None = None

    @model_validator(mode="after")
    def _check_fields(self) -> "Stage":
        has_fused_anchor = any(set(pair.anchor) == {"sketch", "text"} for pair in self.pairs)
        usable = {*self.modalities, "gate"} if has_fused_anchor else set(self.modalities)
        if unused := set(self.trainable) - usable:
            raise ValueError(f"trainable: {', '.join(sorted(unused))} is in no pair; add one")
        if self.noise and self.noise.kind == "query" and not {"sketch", "text", "gate"} & set(self.trainable):
            raise ValueError("noise.kind=query needs a trainable sketch, text or gate; use kind=pixels")
        if (self.negatives == "stored") != (self.hard_negatives > 0):
            raise ValueError("negatives=stored and hard_negatives > 0 require each other")
        if self.shared_encoder and ("sketch" in self.trainable) != ("photo" in self.trainable):
            raise ValueError("shared_encoder: sketch and photo are trainable together or not at all")
        return self

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities whose features the stage needs, in the order sketch, photo, text."""
        used = {m for pair in self.pairs for m in (*pair.anchor, pair.positive)}
        return tuple(m for m in MODALITIES if m in used)

    @property
    def trainable_encoders(self) -> tuple[Modality, ...]:
        """The modalities of trainable encoders, in the order sketch, photo, text."""
        return tuple(m for m in MODALITIES if m in self.trainable)

    @property
    def corrupted(self) -> tuple[Modality, ...]:
        """The modalities that `noise` applies to: trainable ones, or the queries that the gate learns from.

        All other inputs of the stage stay clean.
        """
        if self.noise is None:
            return ()
        inputs = ("sketch", "text") if "gate" in self.trainable else self.trainable
        return tuple(m for m in NOISE_MODALITIES[self.noise.kind] if m in inputs)


@dataclass(frozen=True, config=STRICT)
class LossConstants:
    """Constants of the losses (docs/method.md, modules 1 and 2)."""

    temperature: Positive = 0.07
    triplet_margin: NotNegative = 0.2
    arcface_margin: NotNegative = 0.2
    arcface_scale: Positive = 32.0


@dataclass(frozen=True, config=STRICT)
class OptimizerConfig:
    """AdamW, created anew for each stage.

    grad_clip: maximum gradient norm. warmup_ratio: share of the stage's steps. final_lr_ratio: last learning
    rate over the first. backbone_lr_ratio: rate of pretrained backbones over that of projections and heads.
    """

    lr: Positive = 5e-5
    weight_decay: NotNegative = 1e-4
    grad_clip: Positive = 1.0
    warmup_ratio: Fraction = 0.0
    final_lr_ratio: Fraction = 1.0
    backbone_lr_ratio: Positive = 1.0


@dataclass(frozen=True, config=STRICT)
class Augmentation:
    """Random geometry of training images. Sketch and photo of a sample are flipped together.

    scale, shift: share of the image size. rotate: degrees. photo_ratio: strength for photos over that for
    sketches. word_dropout: share of a caption's words that is dropped; negatives are still chosen by the
    complete captions.
    """

    flip: bool = True
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    shift: Fraction = 0.08
    rotate: Annotated[float, Field(ge=0, le=180)] = 8.0
    photo_ratio: Fraction = 0.5
    word_dropout: Fraction = 0.0


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """A model and how it is trained.

    batch_size: samples of the global batch, over all workers. chunk_size: samples a worker encodes at a time
    with gradient caching (Gao et al. 2021), equal in gradient to encoding all at once; None encodes all.
    augmentation: None leaves images unchanged. shuffle_window: photos within which the order is random.
    num_clusters: use that many clusters of image features as classes in place of the labels.
    """

    name: str
    model: ModelConfig
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    batch_size: Count
    chunk_size: Count | None = None
    seed: int = 0
    loss_constants: LossConstants = LossConstants()
    optimizer: OptimizerConfig = OptimizerConfig()
    augmentation: Augmentation | None = None
    shuffle_window: Count = 4096
    num_clusters: Count | None = None

    @model_validator(mode="after")
    def _check_stages(self) -> "Recipe":
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages: duplicate name among {', '.join(names)}")
        for number, stage in enumerate(self.stages):
            if "gate" in stage.trainable and not self.model.gate:
                raise ValueError(f"stages.{stage.name}.trainable: there is no gate; set model.gate")
            if stage.hubness and (reason := self._hubness_error(self.stages[number:])):
                raise ValueError(f"stages.{stage.name}.hubness: {reason}")
            if stage.shared_encoder and (reason := self._sharing_error(self.stages[:number])):
                raise ValueError(f"stages.{stage.name}.shared_encoder: {reason}")
        return self

    @model_validator(mode="after")
    def _check_chunk_size(self) -> "Recipe":
        encoders = (self.model.photo, self.model.sketch)
        if self.chunk_size and any(each and each.batch_norm == "learn" for each in encoders):
            raise ValueError("chunk_size: batch norms that learn need the full batch; leave chunk_size out")
        return self

    def _sharing_error(self, earlier: tuple[Stage, ...]) -> str | None:
        if self.model.sketch not in (None, self.model.photo):
            return "model.sketch must be left out or equal model.photo"
        if self.model.photo.batch_norm == "learn":
            return "sketches and photos would share batch statistics; set model.photo.batch_norm=fixed"
        trained = (s.name for s in earlier if "sketch" in s.trainable and not s.shared_encoder)
        name = next(trained, None)
        return name and f"stage {name} trained the sketch encoder alone; share it there too, or not here"

    def _hubness_error(self, stages: tuple[Stage, ...]) -> str | None:
        if not self.model.hubness:
            return "set model.hubness to the number of stored queries"
        if any(set(stage.trainable) & set(MODALITIES) for stage in stages):
            return "an encoder is trainable in this stage or later; measure once all are frozen"
        if any(stage.hubness for stage in stages[1:]):
            return "a later stage measures it again; one stage is enough"
        return None if set(stages[0].modalities) == set(MODALITIES) else "it needs sketch, photo and text"

    def constant(self, stage: Stage) -> tuple[Modality, ...]:
        """Modalities with a frozen encoder and the same inputs every epoch: features are computed once."""
        if self.augmentation is not None:
            return ()
        return tuple(m for m in stage.modalities if m not in (*stage.trainable, *stage.corrupted))

    def streamed(self, stage: Stage) -> tuple[Modality, ...]:
        """Modalities whose inputs are needed at each step: those that are not `constant`."""
        return tuple(m for m in stage.modalities if m not in self.constant(stage))

    @property
    def uses_classes(self) -> bool:
        """Whether any stage needs class labels."""
        return any(s.weights.category > 0 or s.negatives != "batch" or s.per_class > 1 for s in self.stages)
