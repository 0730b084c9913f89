"""Field types shared by the configuration dataclasses, and the merge of settings with their defaults."""

from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field

Modality = Literal["sketch", "photo", "text"]
MODALITIES: tuple[Modality, ...] = ("sketch", "photo", "text")
# Further images of a sample, by what they show: another sketch of the photo, the image with another random
# geometry, its mirror image.
View = Literal["other_sketch", "warped_sketch", "flipped_sketch", "warped_photo", "flipped_photo"]
VIEWS: tuple[View, ...] = get_args(View)
Input = Literal[Modality, View]  # of an encoder
MODALITY_OF: dict[Input, Modality] = {
    "sketch": "sketch",
    "photo": "photo",
    "text": "text",
    "other_sketch": "sketch",
    "warped_sketch": "sketch",
    "flipped_sketch": "sketch",
    "warped_photo": "photo",
    "flipped_photo": "photo",
}
Part = Literal["sketch", "photo", "text", "gate"]  # of the model: encoders and fusion gate
PARTS: tuple[Part, ...] = (*MODALITIES, "gate")

STRICT = ConfigDict(extra="forbid")
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


def merge(defaults: Any, overrides: Any) -> Any:
    """`overrides`; a mapping also takes the defaults of the keys that it lacks, at every level."""
    if not (isinstance(defaults, dict) and isinstance(overrides, dict)):
        return overrides
    return defaults | {name: merge(defaults.get(name), value) for name, value in overrides.items()}
