"""KIND:URI → catalogue."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from stbir.catalogue.folder import FolderCatalogue
from stbir.catalogue.photo import Catalogue
from stbir.catalogue.table import COLUMN_TYPES, TableCatalogue
from stbir.catalogue.webdataset import WebDatasetCatalogue
from stbir.errors import InputError

KINDS: dict[str, Callable[[str], Catalogue]] = {
    "folder": FolderCatalogue,
    "table": TableCatalogue,
    "webdataset": WebDatasetCatalogue,
}


def open_catalogue(spec: str, schemes: Iterable[str] = (), columns: Iterable[str] = ()) -> Catalogue:
    """Open `KIND:URI`.

    For tables, `schemes` adds to the allowed URI schemes of rows, and `columns` are `NAME:TYPE` with a type
    of COLUMN_TYPES. Raises InputError for an unknown kind, no photos, or an invalid metadata column.
    """
    kind, _, uri = spec.partition(":")
    if kind not in KINDS or not uri:
        raise InputError(f"{spec!r}: not KIND:URI with KIND one of {', '.join(KINDS)}")
    catalogue, columns, schemes = KINDS[kind](uri), [*columns], [*schemes]
    if isinstance(catalogue, TableCatalogue):
        pairs = tuple(_parse_column(column) for column in columns)
        catalogue = replace(catalogue, schemes=catalogue.schemes.union(schemes), columns=pairs)
    elif columns or schemes:
        option = "--column" if columns else "--allow-scheme"
        raise InputError(f"{option}: a {kind} has none; leave it out, or give table:URI")
    if next(catalogue.parts(), None) is None:
        raise InputError(f"{spec}: contains no photo; check the URI")
    _ = catalogue.fields
    return catalogue


def _parse_column(column: str) -> tuple[str, str]:
    name, _, kind = column.rpartition(":")
    if not name or kind not in COLUMN_TYPES:
        raise InputError(f"--column {column}: not NAME:TYPE with TYPE one of {', '.join(COLUMN_TYPES)}")
    return name, kind
