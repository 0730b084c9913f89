"""What a training run is made of."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from stbir.config.model import ModelConfig
from stbir.config.values import MODALITIES, STRICT, Count, Fraction, Modality, NotNegative, Part, Positive


@dataclass(frozen=True, config=STRICT)
class Pair:
    """One alignment: the normalised mean of the `anchor` modalities should find `positive`."""

    anchor: Annotated[tuple[Modality, ...], Field(min_length=1)]
    positive: Modality
    weight: Positive = 1.0


@dataclass(frozen=True, config=STRICT)
class Noise:
    """A linear ramp of probability and strength over the epochs of a stage (docs/method.md, module 3).

    `kind` "pixels" is the reference's noise, on the pictures that learn; "query" makes poor queries, of
    any severity up to the strength, of the sketches and captions that learn or that the gate learns from
    (strokes missing, a wrong colour, …: `augmentation.query_corruption`); "drawing" of the sketches alone.
    """

    start: NotNegative
    ramp: Positive
    probability: tuple[Fraction, Fraction]
    strength: tuple[Fraction, Fraction]
    kind: Literal["pixels", "query", "drawing"] = "pixels"


# What each kind of noise is for.
NOISY: dict[str, tuple[Modality, ...]] = {
    "pixels": ("sketch", "photo"),
    "query": ("sketch", "text"),
    "drawing": ("sketch",),
}


@dataclass(frozen=True, config=STRICT)
class Weights:
    """Weights of the terms of the loss; a term of weight 0 is not computed."""

    nce: NotNegative = 0.8
    triplet: NotNegative = 0.7
    category: NotNegative = 0.2

    @model_validator(mode="after")
    def _something_to_learn(self) -> "Weights":
        if self.nce == self.triplet == 0:
            raise ValueError("nce and triplet are both 0: nothing would align the towers")
        return self


@dataclass(frozen=True, config=STRICT)
class Stage:
    """Who learns, from which pairs, for how long. Towers not named in `learns` are frozen entirely.

    `sketches`: one random sketch a photo and epoch, or every sketch. `negatives`: "batch", every other
    instance of the global batch; "class", the same but the triplet term takes those of the same class;
    "stored", only `hard` drawn ones of the same class a sample. `group`: how many of one class lie side
    by side in the order, so that a batch holds hard negatives. `extra`: photos of other data sets, given
    for this purpose, take part too. `tied`: one tower for sketch and photo, the photo's (siamese, as in
    Yu et al., CVPR 2016); a later stage without it goes on from two equal ones. `still`: parameter prefixes
    of the picture towers that do not learn in this stage, beside those that the towers never let learn.
    `hubness`: before its first step `model.hubness` is measured; no tower learns then or later.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    learns: Annotated[tuple[Part, ...], Field(min_length=1)]
    pairs: Annotated[tuple[Pair, ...], Field(min_length=1)]
    epochs: Count
    weights: Weights = Weights()
    noise: Noise | None = None
    sketches: Literal["one", "all"] = "one"
    negatives: Literal["batch", "class", "stored"] = "batch"
    hard: Annotated[int, Field(ge=0)] = 0
    group: Count = 1
    extra: bool = False
    tied: bool = False
    still: tuple[str, ...] = ()
    hubness: bool = False
    lr: Positive | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> "Stage":
        asks = any(set(pair.anchor) == {"sketch", "text"} for pair in self.pairs)
        if idle := set(self.learns) - set(self.modalities) - ({"gate"} if asks else set()):
            raise ValueError(f"{', '.join(sorted(idle))} learns but stands in no pair")
        if self.noise and self.noise.kind == "query" and not {"sketch", "text", "gate"} & set(self.learns):
            raise ValueError("noise.kind=query makes poor sketches and texts, and neither of these learns")
        if (self.negatives == "stored") != (self.hard > 0):
            raise ValueError("negatives=stored and hard > 0 go together")
        if self.tied and ("sketch" in self.learns) != ("photo" in self.learns):
            raise ValueError("tied: sketch and photo are one tower, they learn together or not at all")
        return self

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities whose features the stage needs, in the order sketch, photo, text."""
        used = {m for pair in self.pairs for m in (*pair.anchor, pair.positive)}
        return tuple(m for m in MODALITIES if m in used)

    @property
    def corrupted(self) -> tuple[Modality, ...]:
        """The modalities that `noise` is for: those that learn, or the queries that the gate learns from.

        Whatever else the stage needs gives clean anchors.
        """
        if self.noise is None:
            return ()
        learnt_from = ("sketch", "text") if "gate" in self.learns else self.learns
        return tuple(m for m in NOISY[self.noise.kind] if m in learnt_from)


@dataclass(frozen=True, config=STRICT)
class Margins:
    """Constants of the losses (docs/method.md, modules 1 and 2)."""

    temperature: Positive = 0.07
    triplet: NotNegative = 0.2
    arc: NotNegative = 0.2
    arc_scale: Positive = 32.0


@dataclass(frozen=True, config=STRICT)
class Optimiser:
    """AdamW, made anew for each stage. `warmup` is a share of the stage; `trunk` scales the rate of
    pretrained trunks against that of projections and heads; `final` is the last rate over the first."""

    lr: Positive = 5e-5
    weight_decay: NotNegative = 1e-4
    clip: Positive = 1.0
    warmup: Fraction = 0.0
    final: Fraction = 1.0
    trunk: Positive = 1.0


@dataclass(frozen=True, config=STRICT)
class Augment:
    """Random geometry of training pictures; sketch and photo of a sample are flipped together.

    `scale`, `shift` are shares of the picture's size, `rotate` is in degrees; photos get `photo` times
    these. `words` is the share of a caption's words that goes; who is whose negative is still decided
    by the whole captions.
    """

    flip: bool = True
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    shift: Fraction = 0.08
    rotate: Annotated[float, Field(ge=0, le=180)] = 8.0
    photo: Fraction = 0.5
    words: Fraction = 0.0


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """Everything that decides a training run but its data and its machines.

    `batch` counts samples over all workers; a worker encodes all its rows at once, or `chunk` of them at
    a time where they do not fit into memory, with the same gradients. `shuffle` is the least number of
    photos among which the order is random; `augment=None` leaves pictures as they are. `clusters`: classes
    are that many clusters of image features, whatever the data says.
    """

    name: str
    model: ModelConfig
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    batch: Count
    chunk: Count | None = None
    seed: int = 0
    margins: Margins = Margins()
    optimiser: Optimiser = Optimiser()
    augment: Augment | None = None
    shuffle: Count = 4096
    clusters: Count | None = None

    @model_validator(mode="after")
    def _stages_fit_together(self) -> "Recipe":
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages: two have one name among {', '.join(names)}")
        for number, stage in enumerate(self.stages):
            if "gate" in stage.learns and not self.model.gate:
                raise ValueError(f"stages.{stage.name}.learns: there is no gate; set model.gate to its width")
            if stage.hubness and (why := self._not_to_be_measured(self.stages[number:])):
                raise ValueError(f"stages.{stage.name}.hubness: {why}")
            if stage.tied and (why := self._not_to_be_tied(self.stages[:number])):
                raise ValueError(f"stages.{stage.name}.tied: {why}")
        return self

    @model_validator(mode="after")
    def _chunks_are_as_one(self) -> "Recipe":
        towers = (self.model.photo, self.model.sketch)
        if self.chunk and any(tower and tower.batch_norm == "learn" for tower in towers):
            raise ValueError("chunk: batch norms that learn would see chunks for batches; leave it out")
        return self

    def _not_to_be_tied(self, before: tuple[Stage, ...]) -> str | None:
        if self.model.sketch not in (None, self.model.photo):
            return "model.sketch must be left out, or be like model.photo"
        if self.model.photo.batch_norm == "learn":
            return "both kinds of picture would share batch statistics; model.photo.batch_norm must be fixed"
        lost = next((stage.name for stage in before if "sketch" in stage.learns and not stage.tied), None)
        return lost and f"stage {lost} taught the sketch tower alone; tie it too, or leave this out"

    def _not_to_be_measured(self, rest: tuple[Stage, ...]) -> str | None:
        if not self.model.hubness:
            return "set model.hubness to how many queries it keeps"
        if any(set(stage.learns) & set(MODALITIES) for stage in rest):
            return "a tower learns in it or after it; measure when all stand still"
        if any(stage.hubness for stage in rest[1:]):
            return "it is measured again later; once is enough"
        return None if set(rest[0].modalities) == set(MODALITIES) else "it needs sketches, photos and texts"

    def constant(self, stage: Stage) -> tuple[Modality, ...]:
        """Modalities whose towers stand still in the stage and see the same inputs in each epoch, so that
        their features need to be computed once a stage only."""
        if self.augment is not None:
            return ()
        return tuple(m for m in stage.modalities if m not in (*stage.learns, *stage.corrupted))

    def streamed(self, stage: Stage) -> tuple[Modality, ...]:
        """Modalities whose inputs each step of the stage needs: those that are not `constant`."""
        return tuple(m for m in stage.modalities if m not in self.constant(stage))

    @property
    def uses_classes(self) -> bool:
        """Whether any stage needs class labels."""
        return any(s.weights.category > 0 or s.negatives != "batch" or s.group > 1 for s in self.stages)
