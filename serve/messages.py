"""What the deployments say to one another. Plain values: the ingress needs neither torch nor Lance."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stbir.gallery.filters import Condition

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Release:
    """What a request is answered by, throughout: a checkpoint, and a version of the gallery made with it."""

    checkpoint: str  # URI of this very one: a run that goes on does not move it
    digest: str
    gallery: str
    version: int | None = None  # None: nothing is published yet


@dataclass(frozen=True)
class Query:
    """What to search by and for. `sketch` is an encoded picture whose header has been checked; `photo_id` a
    photo of the gallery, which stands in its place: more like this one."""

    sketch: bytes | None
    text: str | None
    k: int
    sketch_weight: float
    category: str | None
    photo_id: str | None = None
    where: tuple[Condition, ...] = ()
    deadline: float = math.inf  # seconds since the epoch: whoever has the query later drops it

    @property
    def kind(self) -> str:
        """What it asks by."""
        named = (("photo", self.photo_id), ("sketch", self.sketch), ("text", self.text))
        return "+".join(name for name, part in named if part is not None)


@dataclass(frozen=True)
class Encoded:
    """The unit vector (D,) of one modality, and how long its steps took."""

    vector: Vector
    timing_ms: dict[str, float]


Outcome = Encoded | Exception  # of one part of a query: its vector, or what is wrong with it


@dataclass(frozen=True)
class Found:
    """The hits of one query, what they are from, and how long every step took.

    A hit has the fields of `stbir.gallery.search.Hit`: photo_id, score, category, text.
    """

    hits: list[dict[str, Any]]
    checkpoint: str  # its digest
    gallery_version: int
    timing_ms: dict[str, float] = field(default_factory=dict)
