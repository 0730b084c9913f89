"""A table of photos in Parquet, CSV, TSV or JSON Lines: `photo_id`, `uri` and optionally `category`.

Other columns are metadata. A `uri` without a scheme is relative to the table's file; all others must have
one of the allowed schemes. HTTP URIs are read by plain GET requests without credentials, from sixteen
threads per task, without rate limit or robots.txt. Download photos from third-party web servers first, at a
rate that they permit.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from stbir.catalogue.fields import check_column_name, column_type
from stbir.catalogue.photo import NO_CATEGORY, Part, Photo, PhotoRef, other_files, split_into_parts
from stbir.catalogue.reading import read_photos
from stbir.data.sources.entry import IMAGE_SUFFIXES, join_uri, resolve_files
from stbir.data.validation import Fault
from stbir.errors import InputError
from stbir.storage.fetch import DEFAULT_SCHEMES
from stbir.storage.file_version import read_versions
from stbir.storage.folder import Folder
from stbir.storage.table_file import SUFFIXES, open_batches, read_schema
from stbir.storage.uri import is_absolute, uri_scheme

_PATTERN = "*.parquet"
_ID, _URI, _CATEGORY = "photo_id", "uri", "category"
# Types of the option --column. A column `text` has the captions of hits.
COLUMN_TYPES = {"text": pa.string(), "int": pa.int64(), "float": pa.float64()}
_FIXED_TYPES = {_ID: "text", _URI: "text", _CATEGORY: "text", "text": "text"}


@dataclass(frozen=True)
class TableCatalogue:
    """The rows of one file, or of all Parquet files of a folder in the order of their names.

    `schemes` are those that a URI of a row can have. `columns` are the names and types (of COLUMN_TYPES) of
    columns whose type the file does not decide.
    """

    uri: str
    schemes: frozenset[str] = DEFAULT_SCHEMES
    columns: tuple[tuple[str, str], ...] = ()

    @cached_property
    def fields(self) -> pa.Schema:
        """The metadata columns, with `uri` as in the table. Raises InputError for an invalid name or type."""
        schema = self._schema
        names = [name for name in schema.names if name not in (_ID, _CATEGORY)]
        for name in names:
            check_column_name(name, f"{self.uri}: column {name}")
        kinds = [column_type(schema.field(name).type, f"{self.uri}: column {name}") for name in names]
        return pa.schema(list(zip(names, kinds, strict=True)))

    def count(self) -> int:
        """See Catalogue."""
        num_rows: int = sum(table.num_rows for _, table in self._tables())
        return num_rows + len(self._others)

    def parts(self) -> Iterator[Part]:
        """See Catalogue. Holds one batch of rows in memory."""
        return split_into_parts(self._refs())

    def identities(self, part: Part) -> list[str | None]:
        """See Catalogue. Asks the storage for each file."""
        versions = read_versions([ref.uri if ref.problem is None else None for ref in part.location])
        return [ref.identify(version) for ref, version in zip(part.location, versions, strict=True)]

    def read(self, part: Part) -> Iterator[Photo | Fault]:
        """See Catalogue."""
        return read_photos(part.location, self.schemes)

    @property
    def folder(self) -> Folder:
        """The folder that relative URIs of rows start from."""
        return self._files[0]

    @property
    def _files(self) -> tuple[Folder, list[str]]:
        folder, names = resolve_files(self.uri, SUFFIXES, _PATTERN)
        if not names:
            raise InputError(
                f"{self.uri}: no table found; give a .parquet, .csv, .tsv or .jsonl file, or a folder of"
                " .parquet files"
            )
        return folder, names

    @property
    def _others(self) -> list[PhotoRef]:
        """What a folder holds beside its tables, but for images, which rows may name."""
        others = [] if self.uri.endswith(SUFFIXES) else other_files(Folder(self.uri), _PATTERN)
        return [ref for ref in others if not ref.photo_id.lower().endswith(IMAGE_SUFFIXES)]

    @cached_property
    def _schema(self) -> pa.Schema:
        """The columns of the first file, with the types that `columns` sets."""
        folder, names = self._files
        schema = read_schema(folder, names[0])
        _check_columns(schema, dict(self.columns), f"{folder.uri}/{names[0]}")
        types = {name: COLUMN_TYPES[kind] for name, kind in [*self.columns, *_FIXED_TYPES.items()]}
        return pa.schema([pa.field(field.name, types.get(field.name, field.type)) for field in schema])

    def _tables(self) -> Iterator[tuple[str, pa.Table]]:
        folder, names = self._files
        for name in names:
            with open_batches(folder, name) as (schema, batches):
                if schema.names != self._schema.names:
                    raise InputError(
                        f"{folder.uri}/{name}: columns differ from those of {names[0]}; make them equal"
                    )
                for batch in batches:
                    yield name, pa.table(batch)

    def _refs(self) -> Iterator[PhotoRef]:
        folder, _ = self._files
        number = 0
        for file, table in self._tables():
            for row in self._cast(table, file).to_pylist():
                number += 1
                yield self._ref(folder, row, f"{file}:{number}")
        yield from self._others

    def _cast(self, table: pa.Table, file: str) -> pa.Table:
        types = {_ID: pa.string(), _CATEGORY: pa.string()}
        types |= {field.name: field.type for field in self.fields}
        columns = {}
        for name in table.column_names:
            try:
                columns[name] = table[name].cast(types[name])
            except pa.ArrowException as error:
                remedy = f"make it one type, or give --column {name}:text"
                raise InputError(f"{self.uri}: {file}: column {name}: {error}; {remedy}") from error
        return pa.table(columns)

    def _ref(self, folder: Folder, row: dict[str, Any], location: str) -> PhotoRef:
        metadata = tuple(row[name] for name in self.fields.names)
        category = row.get(_CATEGORY) or NO_CATEGORY
        if not row[_ID]:
            return PhotoRef(location, category, None, metadata, problem="no photo_id")
        if not row[_URI]:
            return PhotoRef(row[_ID], category, None, metadata, problem="no uri")
        uri, problem = join_uri(folder, row[_URI]), None
        if is_absolute(row[_URI]) and (scheme := uri_scheme(uri)) not in self.schemes:
            problem = f"scheme is not allowed: {scheme}; name it with --allow-scheme"
        return PhotoRef(row[_ID], category, uri, metadata, problem=problem)


def _check_columns(schema: pa.Schema, types: dict[str, str], location: str) -> None:
    names, remedy = ", ".join(schema.names), "rename the columns of photo id and URI"
    missing = [name for name in (_ID, _URI) if name not in schema.names]
    if missing:
        raise InputError(f"{location}: no column {' and no '.join(missing)} among {names}; {remedy}")
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if twice:
        raise InputError(f"{location}: several columns are named {twice[0]}; rename all but one")
    for name, kind in types.items():
        if name not in schema.names:
            raise InputError(f"--column {name}: {location} has no such column among {names}")
        if _FIXED_TYPES.get(name, kind) != kind:
            raise InputError(f"--column {name}:{kind}: this column is always text; leave the option out")
