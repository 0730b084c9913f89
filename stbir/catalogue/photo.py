"""The Catalogue protocol: photos to embed, listed in parts and read part by part."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import pyarrow as pa

from stbir.data.sources.layout import OUTSIDE, describe, match_layout
from stbir.data.validation import Fault
from stbir.storage.folder import Folder
from stbir.storage.listing import LISTED_LINK, NOT_A_FILE, NOT_SEARCHED

PART_SIZE = 256  # photos that one task reads and decodes
NO_CATEGORY = "unknown"
# The fault of a photo that a later run may be able to read. All other faults are permanent.
PHOTO_UNREACHABLE = "photo out of reach"
NOT_AN_IMAGE = "not an image"
OTHER_IMAGE = "other image of a sample"
NAME_NOT_UTF8 = "name is not UTF-8"
# Files that a catalogue lists but that are no photos: reported and counted, but no errors.
NOT_TAKEN = frozenset({NOT_AN_IMAGE, LISTED_LINK, NOT_A_FILE, OTHER_IMAGE, OUTSIDE, NOT_SEARCHED})


@dataclass(frozen=True)
class Photo:
    """One photo with its encoded bytes. `metadata` has one value per field of the catalogue, in order."""

    photo_id: str
    category: str
    metadata: tuple[Any, ...]
    data: bytes


@dataclass(frozen=True)
class PhotoRef:
    """A reference to a photo whose bytes are not read yet.

    `uri` is None if there is no file. `size` and `offset` in bytes, where known, locate it in a larger
    file. `problem` is the fault of a photo that cannot be read: `REASON` or `REASON: DETAIL`.
    `version` changes with the file, None if unknown (`storage.file_version`).
    A file with `check_content` is a photo only if its first bytes are those of an image, whatever its name.
    """

    photo_id: str
    category: str
    uri: str | None
    metadata: tuple[Any, ...] = ()
    size: int | None = None
    offset: int | None = None
    problem: str | None = None
    check_content: bool = False
    version: str | None = None

    def identify(self, version: str | None) -> str | None:
        """See Catalogue.identities, for a file of that version."""
        if version is None or self.problem is not None:
            return None
        place = (self.uri, self.offset, self.size, version)
        return repr((self.photo_id, self.category, self.metadata, *place))


@dataclass(frozen=True)
class Part:
    """Consecutive photos of a catalogue. Only the catalogue itself interprets `location`."""

    ids: list[str]
    location: Any

    @property
    def is_divisible(self) -> bool:
        """Whether the location has one item per photo, so that some of them can be read alone."""
        return isinstance(self.location, list) and len(self.location) == len(self.ids)


class Catalogue(Protocol):
    """Photos in a fixed order. Catalogues are small and pickled, since `read` runs in other processes."""

    @property
    def fields(self) -> pa.Schema:
        """The metadata columns, with types from `column_type` and without reserved names."""

    def parts(self) -> Iterator[Part]:
        """List all photos lazily. Raises InputError if they cannot be listed."""

    def count(self) -> int:
        """Number of photos that `parts` lists. Reads no photo."""

    def identities(self, part: Part) -> list[str | None]:
        """One text per id of the part, which changes if the bytes, category or metadata of the photo do: the
        URI, size and version of its file, as rsync compares files. None if unknown. Reads no photo."""

    def read(self, part: Part) -> Iterator[Photo | Fault]:
        """One result per id of the part, in order."""


def other_files(folder: Folder, pattern: str) -> list[PhotoRef]:
    """What a folder holds beside the files of a pattern, as references that are not taken."""
    _, others = match_layout(folder, [pattern])
    return [PhotoRef(each.name, NO_CATEGORY, None, problem=": ".join(describe(each))) for each in others]


def split_into_parts(refs: Iterable[PhotoRef]) -> Iterator[Part]:
    """Group references into parts of PART_SIZE. Names that are not UTF-8 become faults."""
    iterator = map(_reject_invalid_name, refs)
    while part := list(islice(iterator, PART_SIZE)):
        yield Part([ref.photo_id for ref in part], part)


def escape_name(name: str) -> str:
    """A name as valid Unicode, with a backslash escape for each byte that is not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def _reject_invalid_name(ref: PhotoRef) -> PhotoRef:
    if ref.photo_id.isascii() and ref.category.isascii():
        return ref
    photo_id, category = escape_name(ref.photo_id), escape_name(ref.category)
    if (photo_id, category) == (ref.photo_id, ref.category):
        return ref
    return replace(ref, photo_id=photo_id, category=category, problem=ref.problem or NAME_NOT_UTF8)
