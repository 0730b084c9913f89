"""The CPU half of embed_gallery: a part of a catalogue → decoded photos. Its tasks load no model library."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stbir.catalogue.photo import OUT_OF_REACH, Catalogue, Part, Photo
from stbir.data.validation import Fault
from stbir.errors import InputError
from stbir.gallery.fingerprint import content_of, fingerprint
from stbir.gallery.thumbnail import shrunk
from stbir.images import Pixels, open_picture, square_pixels

_UNDECODABLE = "photo does not decode"


@dataclass(frozen=True)
class Decoded:
    """What became of the photos of a part: the columns of those to embed, and every other one's fate."""

    photo_ids: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    thumbnails: list[bytes] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    facts: list[tuple[Any, ...]] = field(default_factory=list)
    there: list[tuple[str, bytes]] = field(
        default_factory=list
    )  # id, fingerprint: the table has them already
    faults: list[Fault] = field(default_factory=list)

    @property
    def failed(self) -> list[Fault]:
        """The faults of photos that may be readable another time."""
        return [fault for fault in self.faults if fault.reason == OUT_OF_REACH]

    @property
    def photos(self) -> int:
        """How many there are in all."""
        return len(self.photo_ids) + len(self.there) + len(self.faults)


def decode_part(
    catalogue: Catalogue, part: Part, repeated: frozenset[int], known: dict[str, list[bytes]], size: int
) -> tuple[Decoded, Pixels]:
    """Read and decode what the table does not have: uint8 (B, 3, size, size) and all else.

    `known` has the fingerprints of the table's rows by id; `repeated` are places in the part of ids that came
    before.
    """
    decoded = Decoded()
    pixels_B3SS = np.empty((len(part.ids), 3, size, size), np.uint8)
    for photo in _first_of_each(catalogue.read(part), repeated):
        if isinstance(photo, Fault):
            decoded.faults.append(photo)
        else:
            _decode(photo, known, decoded, pixels_B3SS)
    if decoded.photos != len(part.ids):
        raise InputError(f"photo {part.ids[0]} and those behind it changed while they were read; start again")
    return decoded, pixels_B3SS[: len(decoded.photo_ids)]


def _first_of_each(photos: Iterator[Photo | Fault], repeated: frozenset[int]) -> Iterator[Photo | Fault]:
    for number, photo in enumerate(photos):
        if number in repeated:
            content = content_of(photo.data) if isinstance(photo, Photo) else photo.content
            yield Fault(photo.photo_id, "duplicate id", detail="the first one stays", content=content)
        else:
            yield photo


def _decode(photo: Photo, known: dict[str, list[bytes]], decoded: Decoded, pixels: Pixels) -> None:
    content = content_of(photo.data)
    print_ = fingerprint(photo.photo_id, photo.category, content, photo.facts)
    if print_ in known.get(photo.photo_id, ()):
        decoded.there.append((photo.photo_id, print_))
        return
    try:
        picture = open_picture(photo.data, "photo")
    except InputError as error:
        fault = Fault(photo.photo_id, _UNDECODABLE, detail=str(error), content=content)
        decoded.faults.append(fault)
        return
    pixels[len(decoded.photo_ids)] = square_pixels(picture, pixels.shape[-1])
    decoded.photo_ids.append(photo.photo_id)
    decoded.categories.append(photo.category)
    decoded.thumbnails.append(shrunk(picture))
    decoded.contents.append(content)
    decoded.facts.append(photo.facts)
