"""KIND:URI, or a path whose kind is recognised → catalogue."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from stbir.catalogue.folder import FolderCatalogue
from stbir.catalogue.photo import Catalogue
from stbir.catalogue.shards import ShardsCatalogue
from stbir.catalogue.table import COLUMN_TYPES, TableCatalogue
from stbir.catalogue.webdataset import WebDatasetCatalogue
from stbir.data.shards import open_shards
from stbir.errors import InputError
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest
from stbir.storage.table_file import SUFFIXES

KINDS: dict[str, Callable[[str], Catalogue]] = {
    "folder": FolderCatalogue,
    "table": TableCatalogue,
    "webdataset": WebDatasetCatalogue,
}


_SUFFIX_KINDS = {**{suffix: "table" for suffix in SUFFIXES}, ".tar": "webdataset"}


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


def open_photos(photos: str, split: str | None = None) -> Catalogue:
    """Open KIND:URI, or a path or URI alone: a table (by its suffix), a .tar file, SHARDS, or a folder.

    `split` is for SHARDS only. Raises InputError as `open_catalogue` and `open_shards_catalogue`.
    """
    is_shards = _is_shards(photos)
    if split is not None and not is_shards:
        raise InputError(f"split: {photos} is not SHARDS, and only these have splits; leave it out")
    if is_shards:
        return open_shards_catalogue(photos, split)
    if photos.partition(":")[0] in KINDS:
        return open_catalogue(photos)
    kind = next((kind for suffix, kind in _SUFFIX_KINDS.items() if photos.endswith(suffix)), "folder")
    return open_catalogue(f"{kind}:{photos}")


def open_shards_catalogue(uri: str, split: str | None) -> ShardsCatalogue:
    """The photos of SHARDS, of one split or all. Raises InputError that names the splits with photos."""
    catalogue = ShardsCatalogue(open_shards(uri), split)
    if next(catalogue.parts(), None) is None:
        catalogue.count()  # raises the error
    return catalogue


def _is_shards(photos: str) -> bool:
    if photos.partition(":")[0] in KINDS or photos.endswith(tuple(_SUFFIX_KINDS)):
        return False
    try:
        return read_manifest(Folder(photos), "shards").kind == "shards"
    except InputError:  # no manifest, or another one: a folder of photos may contain any file
        return False


def _parse_column(column: str) -> tuple[str, str]:
    name, _, kind = column.rpartition(":")
    if not name or kind not in COLUMN_TYPES:
        raise InputError(f"--column {column}: not NAME:TYPE with TYPE one of {', '.join(COLUMN_TYPES)}")
    return name, kind
