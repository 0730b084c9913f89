"""What a source says of a photo before any picture is opened."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from stbir.storage.folder import Folder

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Entry:
    """One photo with what belongs to it. Pictures are URIs that the source's `read` opens."""

    photo_id: str
    category: str
    class_: str | None
    split: str
    photo: str
    sketches: tuple[str, ...]
    text: str | None
    text_source: str | None = None


@dataclass(frozen=True)
class Source:
    """The photos of a source, in a fixed order, and how to read a picture of it.

    `read` may run in another process and raises InputError where a picture cannot be had. `unused`
    counts what lies in the source but belongs to no photo, by kind: nothing is passed over silently.
    """

    entries: list[Entry]
    read: Callable[[str], bytes]
    unused: Counter[str] = field(default_factory=Counter)


def absolute(folder: Folder, name: str) -> str:
    """The full URI of a file in a folder, also where the folder was given as a relative path."""
    return str(folder.fs.unstrip_protocol(folder.at(name)))


def stem(name: str) -> str:
    """A file's name without folder and picture suffix; dots inside the name stay."""
    base = name.rpartition("/")[2]
    for suffix in PICTURE_SUFFIXES:
        if base.lower().endswith(suffix):
            return base[: -len(suffix)]
    return base


def pictures(folder: Folder, pattern: str) -> list[str]:
    """Sorted names of the pictures that match a glob pattern."""
    return [name for name in folder.names(pattern) if name.lower().endswith(PICTURE_SUFFIXES)]
