"""The decode stage of embedding: the photos of a part of a catalogue, decoded, and the faults of the others.

Imports no model library: Ray tasks call it, too.
"""

import faulthandler
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain, islice
from typing import Any

import numpy as np

from stbir.catalogue.photo import NOT_TAKEN, PHOTO_UNREACHABLE, Catalogue, Part, Photo
from stbir.config import Preprocess
from stbir.data.validation import Fault
from stbir.errors import InputError
from stbir.gallery.fingerprint import content_hash, fingerprint
from stbir.gallery.thumbnail import encode_thumbnail
from stbir.images import Pixels, Resize, open_image, resize_photo

_UNDECODABLE = "photo does not decode"
KILLS_WORKER, PHOTO_TIMED_OUT = "kills its worker", "timed out"
_STDERR = 2  # the file descriptor
_RETRYABLE = (PHOTO_UNREACHABLE, KILLS_WORKER, PHOTO_TIMED_OUT)


@dataclass(frozen=True)
class UnreadPart:
    """A part to read, and what is known of each of its photos, in order.

    is_duplicate: an earlier photo of the catalogue has the id. identities: a hash of Catalogue.identities,
    empty if unknown. fingerprints: of the rows of the table with the id.
    """

    part: Part
    is_duplicate: list[bool]
    identities: list[bytes]
    fingerprints: list[list[bytes]]


@dataclass(frozen=True)
class DecodedPart:
    """A decoded part: the columns of the photos to encode, the photos that the table has, and the faults.

    num_unchanged: photos that are not read, since their file is as it was.
    """

    photo_ids: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    thumbnails: list[bytes] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    metadata: list[tuple[Any, ...]] = field(default_factory=list)
    existing: list[tuple[str, bytes]] = field(default_factory=list)  # id and fingerprint
    identities: list[tuple[bytes, bytes]] = field(default_factory=list)  # fingerprint and identity
    faults: list[Fault] = field(default_factory=list)
    num_unchanged: int = 0

    @property
    def failed(self) -> list[Fault]:
        """The faults that another run may not have: unreachable photos, and those that end a worker."""
        return [fault for fault in self.faults if fault.reason in _RETRYABLE]

    @property
    def not_taken(self) -> list[Fault]:
        """The listed files that are no photos; no errors."""
        return [fault for fault in self.faults if fault.reason in NOT_TAKEN]

    @property
    def num_photos(self) -> int:
        """The number of listed files with any outcome."""
        return len(self.photo_ids) + len(self.existing) + self.num_unchanged + len(self.faults)

    @classmethod
    def merge(cls, parts: Sequence["DecodedPart"]) -> "DecodedPart":
        """One part of all photos that were read, in order."""
        names = [each.name for each in fields(cls) if each.default_factory is list]
        columns = ((name, chain.from_iterable(getattr(part, name) for part in parts)) for name in names)
        return cls(**{name: list(values) for name, values in columns})  # type: ignore[arg-type]


def decode_part(
    catalogue: Catalogue, unread: UnreadPart, preprocess: Preprocess, photo_timeout_s: float | None = None
) -> tuple[DecodedPart, Pixels]:
    """Read the photos of a part and decode the new ones: uint8 (B, 3, size, size).

    A photo that takes longer than `photo_timeout_s` ends the process. Raises InputError if the catalogue
    changes while it is read.
    """
    decoded, num_ids = DecodedPart(), len(unread.part.ids)
    pixels_B3SS = np.empty((num_ids, 3, preprocess.size, preprocess.size), np.uint8)
    position = 0
    for photo in _time_each(catalogue.read(unread.part), photo_timeout_s):
        if position < num_ids:
            _decode(photo, unread, position, preprocess.resize, decoded, pixels_B3SS)
        position += 1
    if position != num_ids:
        raise _catalogue_changed(unread.part)
    return decoded, pixels_B3SS[: len(decoded.photo_ids)]


def decode_photos(
    catalogue: Catalogue, unread: UnreadPart, preprocess: Preprocess, start: int, photo_timeout_s: float
) -> Iterator[tuple[DecodedPart, Pixels] | None]:
    """As `decode_part`, one photo after the other, from position `start`. Yields None when it has started."""
    yield None
    part, position = unread.part, start
    for photo in _time_each(_read_each(catalogue, part, start), photo_timeout_s):
        if position == len(part.ids):
            raise _catalogue_changed(part)
        decoded, pixels_13SS = DecodedPart(), np.empty((1, 3, preprocess.size, preprocess.size), np.uint8)
        _decode(photo, unread, position, preprocess.resize, decoded, pixels_13SS)
        faulthandler.cancel_dump_traceback_later()  # the next photo may wait for its turn
        yield decoded, pixels_13SS[: len(decoded.photo_ids)]
        position += 1
    if position < len(part.ids):
        raise _catalogue_changed(part)


def _read_each(catalogue: Catalogue, part: Part, start: int) -> Iterator[Photo | Fault]:
    """Read the photos from `start` on, and no other, if the location of a part can be split."""
    if part.location is None:
        yield from catalogue.read(Part(part.ids[start:], None))
    elif part.is_divisible:
        for number in range(start, len(part.ids)):
            yield from catalogue.read(Part(part.ids[number : number + 1], part.location[number : number + 1]))
    else:
        yield from islice(catalogue.read(part), start, None)


def _time_each(photos: Iterator[Photo | Fault], timeout_s: float | None) -> Iterator[Photo | Fault]:
    """The photos. If the time for one is over, from its reading to the next, the process exits."""
    if timeout_s is None:
        yield from photos
        return
    try:
        # A timer of C, since a decoder may hold Python's lock.
        faulthandler.dump_traceback_later(timeout_s, exit=True, file=_STDERR)
        for photo in photos:
            yield photo
            faulthandler.dump_traceback_later(timeout_s, exit=True, file=_STDERR)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _catalogue_changed(part: Part) -> InputError:
    return InputError(f"the catalogue changed near photo {part.ids[0]} while it was read; start again")


def _decode(
    photo: Photo | Fault,
    unread: UnreadPart,
    position: int,
    resize: Resize,
    decoded: DecodedPart,
    pixels: Pixels,
) -> None:
    """Add the outcome of the photo at a position to `decoded`, and if it is new, its pixels to `pixels`."""
    if unread.is_duplicate[position]:
        decoded.faults.append(_duplicate(photo))
    elif isinstance(photo, Fault):
        decoded.faults.append(photo)
    else:
        photo_fingerprint = _decode_photo(photo, unread.fingerprints[position], resize, decoded, pixels)
        if photo_fingerprint and unread.identities[position]:
            decoded.identities.append((photo_fingerprint, unread.identities[position]))


def _duplicate(photo: Photo | Fault) -> Fault:
    if isinstance(photo, Fault):  # e.g. the members of a sample are not adjacent
        return Fault(photo.photo_id, "duplicate id", None, photo.reason, photo.content)
    return Fault(photo.photo_id, "duplicate id", None, "the first one stays", content_hash(photo.data))


def _decode_photo(
    photo: Photo, existing: list[bytes], resize: Resize, decoded: DecodedPart, pixels: Pixels
) -> bytes | None:
    """The fingerprint of the photo; None if it does not decode."""
    content = content_hash(photo.data)
    photo_fingerprint = fingerprint(photo.photo_id, photo.category, content, photo.metadata)
    if photo_fingerprint in existing:
        decoded.existing.append((photo.photo_id, photo_fingerprint))
        return photo_fingerprint
    try:
        image = open_image(photo.data, "photo", side=pixels.shape[-1])
    except InputError as error:
        decoded.faults.append(Fault(photo.photo_id, _UNDECODABLE, detail=str(error), content=content))
        return None
    pixels[len(decoded.photo_ids)] = resize_photo(image, pixels.shape[-1], resize)
    decoded.photo_ids.append(photo.photo_id)
    decoded.categories.append(photo.category)
    decoded.thumbnails.append(encode_thumbnail(image))
    decoded.contents.append(content)
    decoded.metadata.append(photo.metadata)
    return photo_fingerprint
