"""Field types shared by the configuration dataclasses: modalities and ranges of numbers."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

Modality = Literal["sketch", "photo", "text"]
MODALITIES: tuple[Modality, ...] = ("sketch", "photo", "text")
Part = Literal["sketch", "photo", "text", "gate"]  # of the model: encoders and fusion gate
PARTS: tuple[Part, ...] = (*MODALITIES, "gate")

STRICT = ConfigDict(extra="forbid")
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
