"""Configuration of the encoders."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from stbir.config.values import STRICT, Count, Modality, Positive

Triple = tuple[float, float, float]
Cells = Annotated[int, Field(ge=1, le=32)]
Scale = Annotated[float, Field(ge=0.25, le=1)]
HUBNESS_DIMS = 3  # that hubness correction uses, see `model.hubness`
WIDTH_MULTIPLE = 8  # of embeddings with hubness correction: vector indexes (IVF_PQ, IVF_RQ) require it


@dataclass(frozen=True, config=STRICT)
class Preprocess:
    """Input of an image encoder: `size` pixels square, (x / 255 - mean) / std a channel.

    resize: "pad" keeps the aspect ratio and pads with white; "stretch" fills the square.
    """

    size: Annotated[int, Field(ge=16, le=2048)]
    mean: Triple
    std: tuple[Positive, Positive, Positive]
    resize: Literal["pad", "stretch"] = "pad"


@dataclass(frozen=True, config=STRICT)
class ImageEncoderConfig:
    """An image backbone and its preprocessing.

    weights: an open_clip tag, a path, any fsspec URI, or None for random weights.
    options: arguments of `timm.create_model`, or open_clip's `vision_cfg` once the model name is resolved.
    frozen: prefixes of parameters that are never trainable.
    batch_norm: "fixed" keeps the statistics; "folded" (timm) also folds them into the convolutions before
        them, which is faster and starts as the same function; "learn" updates them.
    grid: (convolutional timm backbones) project the means over grid x grid cells in addition to the global
        mean, so that the position of a feature counts.
    multiscale: the same for earlier feature maps, each a pair of stride (2, 4, 8, 16, … pixels) and cells a
        side.
    scales: (convolutional timm backbones) of the input. Training uses the first; after it, the embedding is
        the mean over all (docs/decisions/0068).
    """

    library: Literal["open_clip", "timm"]
    model: str
    preprocess: Preprocess
    weights: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    batch_norm: Literal["fixed", "folded", "learn"] = "fixed"
    grid: Annotated[int, Field(ge=0, le=8)] = 0
    multiscale: tuple[tuple[Count, Cells], ...] = ()
    scales: Annotated[tuple[Scale, ...], Field(min_length=1, max_length=4)] = (1.0,)

    @model_validator(mode="after")
    def _check_feature_maps(self) -> "ImageEncoderConfig":
        if self.grid and self.library != "timm":
            raise ValueError("grid needs a convolutional timm backbone; leave it at 0")
        if self.batch_norm == "folded" and self.library != "timm":
            raise ValueError("batch_norm=folded needs a convolutional timm backbone; leave it at fixed")
        if self.multiscale and self.library != "timm":
            raise ValueError("multiscale needs a convolutional timm backbone; leave it empty")
        if self.scales != (1.0,) and self.library != "timm":
            raise ValueError("scales need a convolutional timm backbone; leave them at 1")
        return self


@dataclass(frozen=True, config=STRICT)
class TextEncoderConfig:
    """The text encoder of an open_clip model; `options` is its `text_cfg` once resolved.

    `library` "words" is a bag of words: the sum of word vectors, trained from scratch, in any order. Its
    `options` are `vocab_size` and `context_length`, for open_clip's own tokenizer. `library` "hf" is a
    pretrained sentence encoder of any language: `model` is its folder, URI, or name on the Hugging Face hub,
    and the `options` `pooling` ("mean", "cls") and `context_length` have defaults.
    frozen: paths of modules or parameters that are never trainable, e.g. `trunk`.
    word_vectors: (hf) add a bag of words, trained from scratch on the same tokens: the sentence encoder
        knows words that are not in the captions, the bag what those mean for these photos.
    """

    model: str
    weights: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    library: Literal["open_clip", "words", "hf"] = "open_clip"
    word_vectors: bool = False
    frozen: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_library(self) -> "TextEncoderConfig":
        if self.library == "words" and self.weights:
            raise ValueError("weights: a bag of words has no pretrained weights; leave them out")
        if self.word_vectors and self.library != "hf":
            raise ValueError("word_vectors needs library=hf; leave it out")
        if self.library == "hf" and self.weights:
            raise ValueError("weights: with library=hf, model names the folder that has them; leave them out")
        if self.library == "words" and "hf_tokenizer_name" in self.options:
            raise ValueError(
                "options: a bag of words uses open_clip's tokenizer; leave hf_tokenizer_name out"
            )
        if self.library == "words" and not {"vocab_size", "context_length"} <= self.options.keys():
            raise ValueError("options: a bag of words needs vocab_size and context_length")
        return self


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """Three encoders with a common embedding of `dim` dimensions.

    sketch: None starts from a copy of the photo encoder.
    appearance_dims: the last dimensions, reserved for appearance (colour, material), which a sketch does not
        show. Texts use only these, sketches only the others, photos both.
    gate: hidden units of the fusion gate; 0 fuses with the plain mean.
    hubness: stored queries a kind for hubness correction; 0 applies none. Set by calibration, after training.
    hubness_dims: dimensions of the correction, after the `dim` of the encoders.
    """

    dim: Count
    photo: ImageEncoderConfig
    text: TextEncoderConfig
    sketch: ImageEncoderConfig | None = None
    appearance_dims: Annotated[int, Field(ge=0)] = 0
    gate: Annotated[int, Field(ge=0)] = 0
    hubness: Annotated[int, Field(ge=0)] = 0
    hubness_dims: Annotated[int, Field(ge=HUBNESS_DIMS)] = HUBNESS_DIMS

    @property
    def width(self) -> int:
        """D, the width of the embeddings: `dim`, and the dimensions of hubness correction."""
        return self.dim + (self.hubness_dims if self.hubness else 0)

    def with_hubness(self, num_queries: int) -> "ModelConfig":
        """The model with hubness correction by `num_queries` a kind; its width is padded."""
        padding = -(self.dim + HUBNESS_DIMS) % WIDTH_MULTIPLE
        return replace(self, hubness=num_queries, hubness_dims=HUBNESS_DIMS + padding)

    def without_weights(self) -> "ModelConfig":
        """The model without the sources of pretrained weights: encoders start from random ones."""
        photo, text = replace(self.photo, weights=None), replace(self.text, weights=None)
        return replace(
            self, photo=photo, sketch=self.sketch and replace(self.sketch, weights=None), text=text
        )

    def without_hubness(self) -> "ModelConfig":
        """The model as it is trained, before calibration."""
        return replace(self, hubness=0, hubness_dims=HUBNESS_DIMS)

    @property
    def encoders(self) -> dict[Modality, ImageEncoderConfig | TextEncoderConfig]:
        """The configuration of each encoder."""
        return {"sketch": self.sketch or self.photo, "photo": self.photo, "text": self.text}

    @property
    def names(self) -> dict[Modality, str]:
        """The backbone of each encoder, for reports and model cards."""
        return {modality: f"{config.library} {config.model}" for modality, config in self.encoders.items()}

    @property
    def sketch_preprocess(self) -> Preprocess:
        """The input of the sketch encoder."""
        return (self.sketch or self.photo).preprocess

    @model_validator(mode="after")
    def _check_appearance_dims(self) -> "ModelConfig":
        if self.appearance_dims >= self.dim:
            raise ValueError(
                f"appearance_dims: {self.appearance_dims} leaves none of dim={self.dim} for sketches"
            )
        if self.appearance_dims and self.photo.library != "timm":
            raise ValueError("appearance_dims needs the feature maps of a timm photo encoder; leave it at 0")
        return self
