"""What a catalogue lists, in parts, and what it gives for each photo."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import pyarrow as pa

from stbir.data.validation import Fault

PART = 256  # photos that one task reads and decodes
NO_CATEGORY = "unknown"
# The reason of a photo that may be readable later; every other reason is for good.
OUT_OF_REACH = "photo out of reach"


@dataclass(frozen=True)
class Photo:
    """One photo with its encoded bytes; `facts` go with the catalogue's `fields`, in their order."""

    photo_id: str
    category: str
    facts: tuple[Any, ...]
    data: bytes


@dataclass(frozen=True)
class Listed:
    """One photo before its bytes are read. `uri`: None where it has none; `size` and `offset` in bytes, where
    known: a photo inside a larger file. `problem`: why it cannot be read, `REASON` or `REASON: DETAIL`."""

    photo_id: str
    category: str
    uri: str | None
    facts: tuple[Any, ...] = ()
    size: int | None = None
    offset: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Part:
    """Photos that follow one another in the catalogue; `place` tells the catalogue where they lie."""

    ids: list[str]
    place: Any


class Catalogue(Protocol):
    """Photos in a fixed order. It is small and travels: `read` runs in other processes."""

    @property
    def fields(self) -> pa.Schema:
        """The columns of metadata, with simple types; what is called as a column of the gallery is none."""

    def parts(self) -> Iterator[Part]:
        """The whole catalogue, listed as it is asked for. Raises InputError where it cannot be listed."""

    def count(self) -> int:
        """How many photos `parts` lists, without reading any."""

    def read(self, part: Part) -> Iterator[Photo | Fault]:
        """One answer for each id of the part, in its order."""


def in_parts(listed: Iterable[Listed]) -> Iterator[Part]:
    """Listed photos, PART at a time."""
    rest = iter(listed)
    while some := list(islice(rest, PART)):
        yield Part([each.photo_id for each in some], some)
