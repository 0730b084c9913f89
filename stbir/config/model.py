"""What the towers are made of."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from stbir.config.values import STRICT, Count, Positive

Triple = tuple[float, float, float]
Cells = Annotated[int, Field(ge=1, le=32)]
HUBNESS_DIMS = 3  # beside `dim`, see `model.hubness`


@dataclass(frozen=True, config=STRICT)
class Preprocess:
    """Pictures as a tower wants them: `size` pixels square, (x / 255 - mean) / std a channel."""

    size: Annotated[int, Field(ge=16, le=2048)]
    mean: Triple
    std: tuple[Positive, Positive, Positive]


@dataclass(frozen=True, config=STRICT)
class PictureTower:
    """A picture trunk and its preprocessing.

    `weights`: an open_clip tag, a path, any fsspec URI, or None for random ones. `options` go to
    `timm.create_model`, or stand for open_clip's `vision_cfg` once the model's name is resolved.
    `frozen` names parameter prefixes that never learn. Batch norms keep their statistics unless
    `batch_norm` is "learn"; "folded" (timm) puts them into the convolutions before them, which is faster and
    begins as the same function. `grid` (convolutional timm trunks): beside the mean over the picture, the
    means over grid x grid cells are projected too, so that it matters where something is. `finer`: the same
    of earlier maps, each a pair of its stride (2, 4, 8, 16, …: pixels from one place of it to the next) and
    the cells a side.
    """

    library: Literal["open_clip", "timm"]
    model: str
    preprocess: Preprocess
    weights: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    batch_norm: Literal["fixed", "folded", "learn"] = "fixed"
    grid: Annotated[int, Field(ge=0, le=8)] = 0
    finer: tuple[tuple[Count, Cells], ...] = ()

    @model_validator(mode="after")
    def _has_a_map(self) -> "PictureTower":
        if self.grid and self.library != "timm":
            raise ValueError("grid needs a convolutional trunk of timm; leave it at 0")
        if self.batch_norm == "folded" and self.library != "timm":
            raise ValueError("batch_norm=folded is for convolutional trunks of timm; leave it at fixed")
        if self.finer and self.library != "timm":
            raise ValueError("finer needs a convolutional trunk of timm; leave it empty")
        return self


@dataclass(frozen=True, config=STRICT)
class TextTower:
    """The text tower of an open_clip model; `options` is its `text_cfg` once resolved.

    `library` "words": the sum of the vectors of the words, whatever their order, made anew; `options` are
    `vocab_size` and `context_length`, for open_clip's own tokenizer.
    """

    model: str
    weights: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    library: Literal["open_clip", "words"] = "open_clip"

    @model_validator(mode="after")
    def _words_are_new(self) -> "TextTower":
        if self.library == "words" and self.weights:
            raise ValueError("weights are of open_clip's text towers; leave them out for words")
        if self.library == "words" and "hf_tokenizer_name" in self.options:
            raise ValueError(
                "options: words are cut by open_clip's own tokenizer; leave hf_tokenizer_name out"
            )
        if self.library == "words" and not {"vocab_size", "context_length"} <= self.options.keys():
            raise ValueError("options: words need vocab_size and context_length")
        return self


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """Three towers that meet in `dim` dimensions. `sketch=None` starts from a copy of the photo tower.

    `details`: how many of them, the last, are for what words tell and a sketch cannot show. Texts lie in
    these, sketches in the others, and photos in both: in these with what early layers and colours say.
    `gate`: the width of what weighs sketch against text in a query; 0 is their mean.
    `hubness`: how many queries of each kind tell which photos are hubs; 0 leaves these as they are.
    """

    dim: Count
    photo: PictureTower
    text: TextTower
    sketch: PictureTower | None = None
    details: Annotated[int, Field(ge=0)] = 0
    gate: Annotated[int, Field(ge=0)] = 0
    hubness: Annotated[int, Field(ge=0)] = 0

    @property
    def width(self) -> int:
        """D, of the vectors that the towers give."""
        return self.dim + (HUBNESS_DIMS if self.hubness else 0)

    @property
    def sketch_size(self) -> int:
        """The side, in pixels, of sketches as their tower wants them."""
        return (self.sketch or self.photo).preprocess.size

    @model_validator(mode="after")
    def _has_room_for_details(self) -> "ModelConfig":
        if self.details >= self.dim:
            raise ValueError(f"details: {self.details} leaves nothing of dim={self.dim} for sketches")
        if self.details and self.photo.library != "timm":
            raise ValueError("details needs the feature maps of a timm photo tower; leave it at 0")
        return self
