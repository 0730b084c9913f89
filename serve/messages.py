"""Messages between the deployments. Plain values: the ingress imports neither torch nor Lance."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stbir.gallery.filters import Condition

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Release:
    """A checkpoint and a version of the gallery embedded with it. Each request is answered by one."""

    checkpoint: str  # URI of one saved state, which later epochs of the run do not change
    digest: str
    gallery: str
    version: int | None = None  # None: no gallery is published yet


@dataclass(frozen=True)
class Negative:
    """What a hit should not show: a sketch, a text or both, fused with equal weight."""

    sketch: bytes | None
    text: str | None
    weight: float


@dataclass(frozen=True)
class Query:
    """A search. A replica drops it once its budget is spent (`serve.deadline`)."""

    sketch: bytes | None  # an encoded image whose header has been checked
    text: str | None
    k: int
    sketch_weight: float
    category: str | None
    photo_id: str | None = None  # a gallery photo in place of a sketch
    where: tuple[Condition, ...] = ()
    budget_s: float = math.inf  # seconds left when this message is sent
    without: tuple[Negative, ...] = ()
    like: tuple[str, ...] = ()  # ids of photos marked as relevant
    unlike: tuple[str, ...] = ()  # ids of photos marked as not relevant
    group: bool = False  # near-duplicates form one hit
    min_match: float = 0.0  # least probability that a hit is the photo meant

    def without_inputs(self) -> "Query":
        """The query without what the encoders get; fusion needs the rest."""
        negatives = tuple(replace(negative, sketch=None, text=None) for negative in self.without)
        return replace(self, sketch=None, text=None, without=negatives)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to search by."""
        return self.sketch is None and self.text is None and self.photo_id is None and not self.like

    @property
    def kind(self) -> str:
        """Its modalities, for logs and metrics, as "sketch+text"."""
        parts = (("photo", self.photo_id), ("sketch", self.sketch), ("text", self.text))
        return "+".join(name for name, part in parts if part is not None) or "like"


@dataclass(frozen=True)
class LargePhoto:
    """A photo to enlarge: an encoded image, empty if there is none, and its page on the web."""

    image: bytes
    link: str | None


@dataclass(frozen=True)
class Encoded:
    """The unit vector (D,) of one modality, the time of its steps, and all the time at the encoder."""

    vector: Vector
    timing_ms: dict[str, float]
    elapsed_s: float = 0.0
    backend: str = ""  # of a canary: what runs the encoder


EncodeResult = Encoded | Exception  # one modality of a query: its vector, or its error


@dataclass(frozen=True)
class SearchResult:
    """The hits of one query, the release they come from, and the time of each step.

    A hit has the fields of `stbir.gallery.search.Hit`.
    """

    hits: list[dict[str, Any]]
    checkpoint: str  # its digest
    gallery_version: int
    timing_ms: dict[str, float] = field(default_factory=dict)
