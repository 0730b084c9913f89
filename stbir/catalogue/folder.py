"""A folder or bucket of images, nested to any depth. The category is the first folder below the root."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from stbir.catalogue.photo import NOT_AN_IMAGE, Part, Photo, PhotoRef, split_into_parts
from stbir.catalogue.reading import read_photos
from stbir.data.sources.entry import IMAGE_SUFFIXES, is_system_file, name_suffix
from stbir.data.validation import Fault
from stbir.storage.folder import Folder
from stbir.storage.listing import ListedFile, list_files


@dataclass(frozen=True)
class FolderCatalogue:
    """All images below `uri`. A photo's id is its path relative to `uri`.

    A file without an image suffix is a photo if its first bytes are those of an image.
    """

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

    def identities(self, part: Part) -> list[str | None]:
        """See Catalogue."""
        return [ref.identify(ref.version) for ref in part.location]

    def read(self, part: Part) -> Iterator[Photo | Fault]:
        """See Catalogue."""
        return read_photos(part.location)

    def _refs(self) -> Iterator[PhotoRef]:
        root = Folder(self.uri)
        return (_ref(root, file) for file in list_files(root))


def _ref(root: Folder, file: ListedFile) -> PhotoRef:
    has_suffix = file.name.lower().endswith(IMAGE_SUFFIXES)
    problem = file.problem
    if is_system_file(file.name):
        problem = f"{NOT_AN_IMAGE}: {name_suffix(file.name)}"
    elif problem and has_suffix:
        problem = "photo missing"  # a broken link
    folder, slash, _ = file.name.partition("/")
    category = folder if slash else root.path.rpartition("/")[2]
    return PhotoRef(
        file.name,
        category,
        file.uri,
        size=file.size,
        problem=problem,
        check_content=not has_suffix,
        version=file.version,
    )
