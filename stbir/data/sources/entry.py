"""Entries of a source, and helpers to list and read its files."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from stbir.errors import InputError
from stbir.storage.folder import Folder

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SPLITS = ("train", "val", "test")
_ABSOLUTE = re.compile(r"/|[a-z][a-z0-9+.-]*://")


@dataclass(frozen=True)
class Entry:
    """One photo with its sketches and metadata. Images are URIs that the source's `read` opens."""

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
    """The entries of a source in a fixed order, and the function that reads its images.

    `read` can run in another process and raises InputError if an image cannot be read. `unused` counts
    files of the source that belong to no photo, by kind.
    """

    entries: list[Entry]
    read: Callable[[str], bytes]
    unused: Counter[str] = field(default_factory=Counter)


def is_absolute(uri: str) -> bool:
    """Whether a URI is an absolute path or has a scheme."""
    return _ABSOLUTE.match(uri) is not None


def resolve_uri(folder: Folder, uri: str) -> str:
    """The full URI of a file that is named relative to a folder. `..` is the folder above, in buckets too."""
    if is_absolute(uri):
        return uri
    if folder.is_local or not {".", ".."}.intersection(uri.split("/")):
        return absolute_uri(folder, uri)
    parts = folder.path.split("/")
    for part in uri.split("/"):
        if part == "..":
            parts = parts[: max(1, len(parts) - 1)]
        elif part != ".":
            parts.append(part)
    return str(folder.fs.unstrip_protocol("/".join(parts)))


def absolute_uri(folder: Folder, name: str) -> str:
    """The full URI of a file in a folder, also if the folder was given by a relative path."""
    return str(folder.fs.unstrip_protocol(folder.path_of(name)))


def stem(name: str) -> str:
    """A file name without folder and image suffix. Other dots in the name stay."""
    base = name.rpartition("/")[2]
    for suffix in IMAGE_SUFFIXES:
        if base.lower().endswith(suffix):
            return base[: -len(suffix)]
    return base


def list_images(folder: Folder, pattern: str) -> list[str]:
    """Sorted names of the images that match a glob pattern."""
    return [name for name in folder.list_files(pattern) if name.lower().endswith(IMAGE_SUFFIXES)]


def resolve_files(uri: str, suffixes: tuple[str, ...], pattern: str) -> tuple[Folder, list[str]]:
    """A folder and the names of files in it: the file at `uri`, or the sorted matches of `pattern` below it.

    `uri` is a file if it ends with one of `suffixes`. The list is empty if there is no such file.
    """
    if not uri.endswith(suffixes):
        folder = Folder(uri)
        return folder, folder.list_files(pattern)
    parent, _, name = uri.rpartition("/")
    folder = Folder(parent or ("/" if uri.startswith("/") else "."))
    return folder, [name] if folder.exists(name) else []


def read_text(folder: Folder, name: str) -> str:
    """The text of a UTF-8 file. Raises InputError for another encoding."""
    try:
        return folder.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{folder.uri}/{name}: not UTF-8 ({error}); save it as UTF-8") from error
