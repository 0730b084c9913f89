"""A folder or bucket of pictures, nested as it may be. The first folder on a photo's way is its category."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from stbir.catalogue.photo import Listed, Part, Photo, in_parts
from stbir.catalogue.reading import read_listed
from stbir.data.validation import Fault
from stbir.errors import InputError
from stbir.storage.folder import UNREACHABLE, Folder
from stbir.storage.retry import patiently

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


@dataclass(frozen=True)
class FolderCatalogue:
    """Every file below `uri` whose name ends as a picture's does. A photo's id is its path below `uri`."""

    uri: str

    @property
    def fields(self) -> pa.Schema:
        """As in Catalogue: none."""
        return pa.schema([])

    def count(self) -> int:
        """As in Catalogue."""
        return sum(1 for _ in self._listed())

    def parts(self) -> Iterator[Part]:
        """As in Catalogue. In memory lies one folder's listing at a time."""
        return in_parts(self._listed())

    def read(self, part: Part) -> Iterator[Photo | Fault]:
        """As in Catalogue."""
        return read_listed(part.place)

    def _listed(self) -> Iterator[Listed]:
        root = Folder(self.uri)
        for info in _files(root, root.path):
            name = info["name"][len(root.path) + 1 :]
            if name.lower().endswith(SUFFIXES):
                yield Listed(name, _category(root, name), _full(root, info["name"]), size=info["size"])


def _category(root: Folder, name: str) -> str:
    first, slash, _ = name.partition("/")
    return first if slash else root.path.rpartition("/")[2]


def _full(root: Folder, path: str) -> str:
    return path if root.local else str(root.fs.unstrip_protocol(path))


def _files(root: Folder, path: str) -> Iterator[dict[str, Any]]:
    """The files of a folder by name, then those of the folders in it. Links to folders are not followed:
    they may lead round in a circle."""
    infos = _list(root, path)
    yield from (info for info in infos if info["type"] == "file")
    for info in infos:
        if info["type"] == "directory" and not info.get("islink"):
            yield from _files(root, info["name"].rstrip("/"))


def _list(root: Folder, path: str) -> list[dict[str, Any]]:
    root.fs.invalidate_cache()
    try:
        found = patiently(lambda: root.fs.ls(path, detail=True))
    except UNREACHABLE as error:
        raise InputError(f"{root.uri}: {path} cannot be listed ({error}); check the path, AWS_*") from error
    # Some stores list a folder in itself, as an empty file.
    there = [info for info in found if info["name"].rstrip("/") != path]
    return sorted(there, key=lambda info: str(info["name"]))
