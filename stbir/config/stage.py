"""Stage dataclasses: what is trainable, on which samples, with which pairs, noise and optimizer."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from stbir.config.values import (
    MODALITIES,
    MODALITY_OF,
    STRICT,
    VIEWS,
    Count,
    Fraction,
    Input,
    Modality,
    NotNegative,
    Positive,
    View,
)


@dataclass(frozen=True, config=STRICT)
class Trainable:
    """The trainable encoders, and whether the fusion gate is. All others are frozen entirely.

    shared: the photo encoder encodes sketches too (siamese, Yu et al., CVPR 2016). A later stage without it
        continues from two equal encoders.
    frozen: parameter prefixes of the image encoders that stay frozen in this stage, in addition to the
        encoders' own.
    """

    encoders: tuple[Modality, ...] = ()
    gate: bool = False
    shared: bool = False
    frozen: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_encoders(self) -> "Trainable":
        if not (self.encoders or self.gate):
            raise ValueError("encoders: none is trainable, nor the gate; name one")
        if self.shared and ("sketch" in self.encoders) != ("photo" in self.encoders):
            raise ValueError("shared: sketch and photo are trainable together or not at all")
        return self


@dataclass(frozen=True, config=STRICT)
class Sampling:
    """The samples of an epoch and their order.

    sketches: one random sketch a photo and epoch, or all of them.
    aux: photos of auxiliary data sets take part.
    per_class: photos of one class placed side by side in the order, so that a batch holds hard negatives.
    hard_negatives: other photos of the same class that are sampled with each sample.
    """

    sketches: Literal["one", "all"] = "one"
    aux: bool = False
    per_class: Count = 1
    hard_negatives: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, config=STRICT)
class Pair:
    """One alignment: the normalised mean of the `anchor` inputs retrieves `positive`.

    anchor, positive: modalities or views. A pair of two views of one modality is an intra-modal term, as in
        Sain et al., CVPR 2023 (arXiv 2303.13779), for example sketch → other_sketch, photo → warped_photo.
    nce, triplet: weights of the terms. A term of weight 0 is not computed.
    temperature: of InfoNCE; with `learn_temperature` the one that the stage starts from, a parameter clamped
        to [0.01, 1] as in CLIP (Radford et al., arXiv 2103.00020, section 2.5).
    candidates: "batch" takes every other instance of the global batch as a negative; "class" does the same,
        but the triplet term takes those of the same class; "batch+hard" takes the hard negatives of all
        samples too, and the triplet term only the sample's own; "hard" takes only the sample's own.
    symmetric: InfoNCE is the mean of both directions, as in CLIP.
    """

    anchor: Annotated[tuple[Input, ...], Field(min_length=1)]
    positive: Input
    nce: NotNegative = 1.0
    triplet: NotNegative = 0.0
    temperature: Positive = 0.07
    learn_temperature: bool = False
    candidates: Literal["batch", "class", "batch+hard", "hard"] = "batch"
    symmetric: bool = False

    @model_validator(mode="after")
    def _check_terms(self) -> "Pair":
        if self.anchor == (self.positive,):
            raise ValueError(f"positive: {self.positive} retrieves itself; name another input")
        if self.nce == self.triplet == 0:
            raise ValueError("nce and triplet are both 0: no term would align the pair; set one above 0")
        if self.learn_temperature and not 0.01 <= self.temperature <= 1:
            raise ValueError(
                "temperature: one that is learnt starts in [0.01, 1]; or set learn_temperature=false"
            )
        return self

    @property
    def uses_hard_negatives(self) -> bool:
        """Whether the hard negatives of the samples are candidates."""
        return self.candidates in ("batch+hard", "hard")


@dataclass(frozen=True, config=STRICT)
class Objective:
    """The pairs, and the weight of the class term of each trainable encoder (0: not computed)."""

    pairs: Annotated[tuple[Pair, ...], Field(min_length=1)]
    category: NotNegative = 0.0


@dataclass(frozen=True, config=STRICT)
class Noise:
    """A linear ramp of probability and strength over the epochs of a stage (docs/method.md, module 3).

    kind: "pixels" is the reference's noise on images. "query" corrupts sketches and captions
        (`augmentation.query_corruption`) with any severity up to the strength.
    modalities: those that it applies to, if their encoder is trainable or the gate learns from them; None:
        all of the kind.
    """

    start: NotNegative
    ramp: Positive
    probability: tuple[Fraction, Fraction]
    strength: tuple[Fraction, Fraction]
    kind: Literal["pixels", "query"] = "pixels"
    modalities: tuple[Modality, ...] | None = None

    @property
    def applicable(self) -> tuple[Modality, ...]:
        """The modalities that the noise may apply to."""
        of_kind: tuple[Modality, ...] = ("sketch", "photo") if self.kind == "pixels" else ("sketch", "text")
        return tuple(m for m in of_kind if self.modalities is None or m in self.modalities)


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
class Stage:
    """One training stage."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    trainable: Trainable
    objective: Objective
    epochs: Count
    sampling: Sampling = Sampling()
    noise: Noise | None = None
    optimizer: OptimizerConfig = OptimizerConfig()

    @model_validator(mode="after")
    def _check_fields(self) -> "Stage":
        pairs = self.objective.pairs
        if unused := set(self.trainable.encoders) - set(self.modalities):
            raise ValueError(f"trainable.encoders: {', '.join(sorted(unused))} is in no pair; add one")
        if self.trainable.gate and not any(set(pair.anchor) == {"sketch", "text"} for pair in pairs):
            raise ValueError("trainable.gate: no pair has the anchor sketch, text; add one")
        if self.noise and self.noise.kind == "query" and not self.corrupted:
            raise ValueError("noise.kind=query needs a trainable sketch, text or gate; use kind=pixels")
        if any(pair.uses_hard_negatives for pair in pairs) != (self.sampling.hard_negatives > 0):
            raise ValueError(
                "objective.pairs: candidates with hard and sampling.hard_negatives > 0 require each other"
            )
        return self

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities whose features the stage needs, in the order sketch, photo, text."""
        used = {MODALITY_OF[name] for name in self._pair_inputs}
        return tuple(m for m in MODALITIES if m in used)

    @property
    def candidate_modalities(self) -> set[Modality]:
        """The modalities that candidates of pairs have. Hard negatives are candidates, so need no others."""
        pairs = self.objective.pairs
        symmetric = {name for pair in pairs if pair.symmetric for name in pair.anchor}
        return {MODALITY_OF[name] for name in symmetric | {pair.positive for pair in pairs}}

    @property
    def views(self) -> tuple[View, ...]:
        """The further images of each sample that the pairs use."""
        return tuple(view for view in VIEWS if view in self._pair_inputs)

    @property
    def trainable_inputs(self) -> tuple[Input, ...]:
        """The modalities and views whose encoder is trainable."""
        inputs = (*self.modalities, *self.views)
        return tuple(name for name in inputs if MODALITY_OF[name] in self.trainable.encoders)

    @property
    def _pair_inputs(self) -> set[Input]:
        return {name for pair in self.objective.pairs for name in (*pair.anchor, pair.positive)}

    @property
    def corrupted(self) -> tuple[Modality, ...]:
        """The modalities that `noise` applies to: trainable ones, or the queries that the gate learns from.

        All other inputs of the stage stay clean.
        """
        if self.noise is None:
            return ()
        inputs = ("sketch", "text") if self.trainable.gate else self.trainable.encoders
        return tuple(m for m in self.noise.applicable if m in inputs)

    @property
    def uses_all_sketches(self) -> bool:
        """Whether an epoch has a sample for each sketch, not for each photo."""
        return "sketch" in self.modalities and self.sampling.sketches == "all"

    @property
    def uses_classes(self) -> bool:
        """Whether the stage needs class labels."""
        sampling, objective = self.sampling, self.objective
        by_class = sampling.per_class > 1 or any(pair.candidates != "batch" for pair in objective.pairs)
        return by_class or objective.category > 0
