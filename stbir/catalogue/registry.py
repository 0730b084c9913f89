"""Which catalogues there are, by the KIND of `KIND:URI`."""

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


def open_catalogue(text: str) -> Catalogue:
    """The catalogue of `KIND:URI`. Raises InputError where there is none, or a column that cannot be kept."""
    kind, _, uri = text.partition(":")
    if kind not in KINDS or not uri:
        raise InputError(f"{text!r}: not KIND:URI with KIND one of {', '.join(KINDS)}")
    catalogue = KINDS[kind](uri)
    if next(catalogue.parts(), None) is None:
        raise InputError(f"{text}: no photos there")
    _ = catalogue.fields
    return catalogue
