"""The decode stage of an embedding job: a Ray task that imports no model library."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stbir.catalogue.photo import NOT_TAKEN, PHOTO_UNREACHABLE, Catalogue, Part, Photo
from stbir.data.validation import Fault
from stbir.errors import InputError
from stbir.gallery.fingerprint import Fingerprints, content_hash, fingerprint
from stbir.gallery.thumbnail import encode_thumbnail
from stbir.images import Pixels, open_image, resize_photo

_UNDECODABLE = "photo does not decode"


@dataclass(frozen=True)
class DecodedPart:
    """A decoded part: the columns of the photos to encode, the photos that the table has, and the faults."""

    photo_ids: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    thumbnails: list[bytes] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    metadata: list[tuple[Any, ...]] = field(default_factory=list)
    existing: list[tuple[str, bytes]] = field(default_factory=list)  # id and fingerprint
    faults: list[Fault] = field(default_factory=list)

    @property
    def failed(self) -> list[Fault]:
        """The faults that another run may not have: unreachable photos."""
        return [fault for fault in self.faults if fault.reason == PHOTO_UNREACHABLE]

    @property
    def not_taken(self) -> list[Fault]:
        """The listed files that are no photos; no errors."""
        return [fault for fault in self.faults if fault.reason in NOT_TAKEN]

    @property
    def photo_ids_in_catalogue(self) -> list[str]:
        """The ids of the photos with any outcome, without the files that are no photos."""
        faults = [fault.photo_id for fault in self.faults if fault.reason not in NOT_TAKEN]
        return [*self.photo_ids, *(photo_id for photo_id, _ in self.existing), *faults]

    @property
    def num_photos(self) -> int:
        """The number of listed files with any outcome."""
        return len(self.photo_ids) + len(self.existing) + len(self.faults)


def decode_part(
    catalogue: Catalogue, part: Part, duplicates: frozenset[int], existing: Fingerprints, image_size: int
) -> tuple[DecodedPart, Pixels]:
    """Read the photos of a part and decode the new ones: uint8 (B, 3, image_size, image_size).

    `duplicates` are the positions of repeated ids in the part, `existing` the fingerprints of the table's
    rows. Raises InputError if the catalogue changes while it is read.
    """
    decoded = DecodedPart()
    pixels_B3SS = np.empty((len(part.ids), 3, image_size, image_size), np.uint8)
    for photo in _reject_duplicates(catalogue.read(part), duplicates):
        if isinstance(photo, Fault):
            decoded.faults.append(photo)
        else:
            _decode(photo, existing, decoded, pixels_B3SS)
    if decoded.num_photos != len(part.ids):
        raise InputError(f"the catalogue changed near photo {part.ids[0]} while it was read; start again")
    return decoded, pixels_B3SS[: len(decoded.photo_ids)]


def _reject_duplicates(
    photos: Iterator[Photo | Fault], duplicates: frozenset[int]
) -> Iterator[Photo | Fault]:
    for position, photo in enumerate(photos):
        if position in duplicates:
            content = content_hash(photo.data) if isinstance(photo, Photo) else photo.content
            yield Fault(photo.photo_id, "duplicate id", detail="the first one stays", content=content)
        else:
            yield photo


def _decode(photo: Photo, existing: Fingerprints, decoded: DecodedPart, pixels: Pixels) -> None:
    content = content_hash(photo.data)
    photo_fingerprint = fingerprint(photo.photo_id, photo.category, content, photo.metadata)
    if photo_fingerprint in existing.get(photo.photo_id, ()):
        decoded.existing.append((photo.photo_id, photo_fingerprint))
        return
    try:
        image = open_image(photo.data, "photo")
    except InputError as error:
        decoded.faults.append(Fault(photo.photo_id, _UNDECODABLE, detail=str(error), content=content))
        return
    pixels[len(decoded.photo_ids)] = resize_photo(image, pixels.shape[-1])
    decoded.photo_ids.append(photo.photo_id)
    decoded.categories.append(photo.category)
    decoded.thumbnails.append(encode_thumbnail(image))
    decoded.contents.append(content)
    decoded.metadata.append(photo.metadata)
