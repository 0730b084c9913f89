"""The origin of a gallery's photos, KIND:URI with an absolute URI, and the URI of each photo."""

from collections.abc import Callable
from typing import Any

from stbir.catalogue.folder import FolderCatalogue
from stbir.catalogue.photo import Catalogue
from stbir.catalogue.table import TableCatalogue
from stbir.data.sources.entry import absolute_uri, join_uri
from stbir.storage.folder import Folder

_LOCAL = "file://"


def origin(catalogue: Catalogue) -> str:
    """`folder:URI`, or `table:URI` with the folder that relative URIs of rows start from; else empty.

    The photos of WebDataset and shards have no file of their own.
    """
    if isinstance(catalogue, FolderCatalogue):
        return f"folder:{Folder(catalogue.uri).uri}"
    if isinstance(catalogue, TableCatalogue):
        return f"table:{catalogue.folder.uri}"
    return ""


def photo_uri(origin: str, photo_id: str, read_value: Callable[[str, str], Any]) -> str | None:
    """The path or URI of a photo; None if it has no file of its own.

    `read_value(photo_id, column)` is called for a photo of a table only, for its column `uri`.
    """
    kind, _, uri = origin.partition(":")
    if kind == "folder":
        return absolute_uri(Folder(uri), photo_id).removeprefix(_LOCAL)
    if kind == "table" and (row_uri := read_value(photo_id, "uri")):
        return join_uri(Folder(uri), row_uri).removeprefix(_LOCAL)
    return None
