"""KIND:URI → catalogue."""

from collections.abc import Callable

from stbir.catalogue.folder import FolderCatalogue
from stbir.catalogue.photo import Catalogue
from stbir.catalogue.table import TableCatalogue
from stbir.catalogue.webdataset import WebDatasetCatalogue
from stbir.errors import InputError

KINDS: dict[str, Callable[[str], Catalogue]] = {
    "folder": FolderCatalogue,
    "table": TableCatalogue,
    "webdataset": WebDatasetCatalogue,
}


def open_catalogue(spec: str) -> Catalogue:
    """Open `KIND:URI`. Raises InputError for an unknown kind, no photos, or an invalid metadata column."""
    kind, _, uri = spec.partition(":")
    if kind not in KINDS or not uri:
        raise InputError(f"{spec!r}: not KIND:URI with KIND one of {', '.join(KINDS)}")
    catalogue = KINDS[kind](uri)
    if next(catalogue.parts(), None) is None:
        raise InputError(f"{spec}: contains no photo; check the URI")
    _ = catalogue.fields
    return catalogue
