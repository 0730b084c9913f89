"""Recipe dataclasses: everything that decides a training run except its data and its machines."""

from typing import Annotated

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from stbir.config.model import ModelConfig
from stbir.config.stage import Stage
from stbir.config.values import (
    MODALITY_OF,
    STRICT,
    Count,
    Fraction,
    Modality,
    NotNegative,
    Positive,
)

Width = Annotated[float, Field(gt=0, le=0.1)]


@dataclass(frozen=True, config=STRICT)
class LossConstants:
    """Constants of the losses (docs/method.md, modules 1 and 2)."""

    triplet_margin: NotNegative = 0.2
    arcface_margin: NotNegative = 0.2
    arcface_scale: Positive = 32.0


@dataclass(frozen=True, config=STRICT)
class StrokeAugmentation:
    """Random changes of sketches whose strokes are in the shards, drawn at the size of the encoder.

    See `augmentation.stroke_augmentation.draw_augmented`. jitter, width: shares of the image size.
    """

    drop: Fraction = 0.3
    reorder: Fraction = 0.5
    jitter: Fraction = 0.01
    width: tuple[Width, Width] = (0.005, 0.015)
    pencil: Fraction = 0.3

    @model_validator(mode="after")
    def _check_width(self) -> "StrokeAugmentation":
        if self.width[0] > self.width[1]:
            raise ValueError(f"width: {self.width[0]} is above {self.width[1]}; give the smaller one first")
        return self


@dataclass(frozen=True, config=STRICT)
class Augmentation:
    """Random geometry of training images. Sketch and photo of a sample are flipped together.

    scale, shift: share of the image size. rotate: degrees. photo_ratio: strength for photos over that for
    sketches. word_dropout: share of a caption's words that is dropped; negatives are still chosen by the
    complete captions. strokes: of sketches with known strokes; None takes the images of all sketches.
    """

    flip: bool = True
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    shift: Fraction = 0.08
    rotate: Annotated[float, Field(ge=0, le=180)] = 8.0
    photo_ratio: Fraction = 0.5
    word_dropout: Fraction = 0.0
    strokes: StrokeAugmentation | None = None


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """A model and how it is trained.

    batch_size: samples of the global batch, over all workers. chunk_size: samples a worker encodes at a time
    with gradient caching (Gao et al. 2021), equal in gradient to encoding all at once; None encodes all.
    augmentation: None leaves images unchanged. shuffle_window: photos within which the order is random.
    num_clusters: use that many clusters of image features as classes in place of the labels; with 1, all
    photos are one class. calibrate: hubness correction is measured after training (`embedding.calibration`).
    """

    name: str
    model: ModelConfig
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    batch_size: Count
    chunk_size: Count | None = None
    seed: int = 0
    loss_constants: LossConstants = LossConstants()
    augmentation: Augmentation | None = None
    shuffle_window: Count = 4096
    num_clusters: Count | None = None
    calibrate: bool = False

    @model_validator(mode="after")
    def _check_stages(self) -> "Recipe":
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages: duplicate name among {', '.join(names)}")
        for number, stage in enumerate(self.stages):
            if stage.trainable.gate and not self.model.gate:
                raise ValueError(f"stages.{stage.name}.trainable.gate: there is no gate; set model.gate")
            if self.augmentation is None and any(view.startswith("warped") for view in stage.views):
                raise ValueError(
                    f"stages.{stage.name}: without augmentation nothing is warped; set augmentation"
                )
            if stage.trainable.shared and (reason := self._sharing_error(self.stages[:number])):
                raise ValueError(f"stages.{stage.name}.trainable.shared: {reason}")
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
        trained = (s.name for s in earlier if "sketch" in s.trainable.encoders and not s.trainable.shared)
        name = next(trained, None)
        return name and f"stage {name} trained the sketch encoder alone; share it there too, or not here"

    def constant(self, stage: Stage) -> tuple[Modality, ...]:
        """Modalities with a frozen encoder and the same inputs every epoch: features are computed once."""
        if self.augmentation is not None:
            return ()
        changing = {*stage.trainable.encoders, *stage.corrupted, *(MODALITY_OF[view] for view in stage.views)}
        return tuple(m for m in stage.modalities if m not in changing)

    def streamed(self, stage: Stage) -> tuple[Modality, ...]:
        """Modalities whose inputs are needed at each step: those that are not `constant`."""
        return tuple(m for m in stage.modalities if m not in self.constant(stage))

    @property
    def uses_classes(self) -> bool:
        """Whether any stage needs class labels."""
        return any(stage.uses_classes for stage in self.stages)
