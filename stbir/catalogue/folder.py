"""A folder or bucket of images, nested to any depth. The category is the first folder below the root."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from stbir.catalogue.photo import Part, Photo, PhotoRef, split_into_parts
from stbir.catalogue.reading import read_photos
from stbir.data.validation import Fault
from stbir.errors import InputError
from stbir.storage.errors import STORAGE_ERRORS
from stbir.storage.folder import Folder
from stbir.storage.retry import with_retries

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


@dataclass(frozen=True)
class FolderCatalogue:
    """All files below `uri` with an image suffix. A photo's id is its path relative to `uri`."""

    uri: str

    @property
    def fields(self) -> pa.Schema:
        """No metadata."""
        return pa.schema([])

    def count(self) -> int:
        """See Catalogue."""
        return sum(1 for _ in self._refs())

    def parts(self) -> Iterator[Part]:
        """See Catalogue. Holds the listing of one folder per level in memory."""
        return split_into_parts(self._refs())

    def read(self, part: Part) -> Iterator[Photo | Fault]:
        """See Catalogue."""
        return read_photos(part.location)

    def _refs(self) -> Iterator[PhotoRef]:
        root = Folder(self.uri)
        for info in _walk(root, root.path):
            path = info["name"]
            name = path[len(root.path) + 1 :]
            if name.lower().endswith(SUFFIXES):
                uri = path if root.is_local else str(root.fs.unstrip_protocol(path))
                yield PhotoRef(name, _category(root, name), uri, size=info["size"])


def _category(root: Folder, name: str) -> str:
    folder, slash, _ = name.partition("/")
    return folder if slash else root.path.rpartition("/")[2]


def _walk(root: Folder, path: str) -> Iterator[dict[str, Any]]:
    """The files of a folder by name, then those of its subfolders.

    Does not follow links to folders, which can form cycles.
    """
    infos = _list(root, path)
    yield from (info for info in infos if info["type"] == "file")
    for info in infos:
        if info["type"] == "directory" and not info.get("islink"):
            yield from _walk(root, info["name"].rstrip("/"))


def _list(root: Folder, path: str) -> list[dict[str, Any]]:
    root.fs.invalidate_cache()
    try:
        infos = with_retries(lambda: root.fs.ls(path, detail=True))
    except STORAGE_ERRORS as error:
        raise InputError(f"{root.uri}: {path} cannot be listed ({error}); check the path, AWS_*") from error
    # Some object stores list a folder inside itself, as an empty file.
    return sorted((info for info in infos if info["name"].rstrip("/") != path), key=lambda i: str(i["name"]))
