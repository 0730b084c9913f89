"""A Parquet or CSV table of photos: `photo_id`, `uri` and optionally `category`; other columns are metadata.

A `uri` without a scheme is relative to the table's file; all others are opened by fsspec. HTTP URIs are read
by plain GET requests without credentials, from sixteen threads per task, without rate limit or robots.txt.
Download photos from third-party web servers first, at a rate that they permit.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from stbir.catalogue.fields import check_column_name, column_type
from stbir.catalogue.photo import NO_CATEGORY, PART_SIZE, Part, Photo, PhotoRef, split_into_parts
from stbir.catalogue.reading import read_photos
from stbir.data.sources.entry import absolute_uri, resolve_files
from stbir.data.validation import Fault
from stbir.errors import InputError
from stbir.storage.folder import Folder
from stbir.storage.retry import with_retries

_ID, _URI, _CATEGORY = "photo_id", "uri", "category"
_ABSOLUTE = re.compile(r"/|[a-z][a-z0-9+.-]*:")


@dataclass(frozen=True)
class TableCatalogue:
    """The rows of one file, or of all Parquet files of a folder in the order of their names."""

    uri: str

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
        return sum(table.num_rows for _, table in self._tables())

    def parts(self) -> Iterator[Part]:
        """See Catalogue. Holds one batch of rows in memory."""
        return split_into_parts(self._refs())

    def read(self, part: Part) -> Iterator[Photo | Fault]:
        """See Catalogue."""
        return read_photos(part.location)

    @property
    def _files(self) -> tuple[Folder, list[str]]:
        folder, names = resolve_files(self.uri, (".parquet", ".csv"), "*.parquet")
        if not names:
            raise InputError(
                f"{self.uri}: no table found; give a .parquet or .csv file, or a folder of .parquet files"
            )
        return folder, names

    @cached_property
    def _schema(self) -> pa.Schema:
        folder, names = self._files
        with _open_batches(folder, names[0]) as (schema, _):
            missing = [name for name in (_ID, _URI) if name not in schema.names]
        if missing:
            raise InputError(
                f"{folder.uri}/{names[0]}: no column {' and no '.join(missing)} among"
                f" {', '.join(schema.names)}; rename the columns of photo id and URI"
            )
        return schema

    def _tables(self) -> Iterator[tuple[str, pa.Table]]:
        folder, names = self._files
        for name in names:
            with _open_batches(folder, name) as (schema, batches):
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

    def _cast(self, table: pa.Table, file: str) -> pa.Table:
        types = {_ID: pa.string(), _CATEGORY: pa.string()}
        types |= {field.name: field.type for field in self.fields}
        try:
            return pa.table({name: table[name].cast(types[name]) for name in table.column_names})
        except pa.ArrowException as error:
            raise InputError(f"{self.uri}: {file}: {error}; make each column one type") from error

    def _ref(self, folder: Folder, row: dict[str, Any], location: str) -> PhotoRef:
        metadata = tuple(row[name] for name in self.fields.names)
        category = row.get(_CATEGORY) or NO_CATEGORY
        if not row[_ID]:
            return PhotoRef(location, category, None, metadata, problem="no photo_id")
        if not row[_URI]:
            return PhotoRef(row[_ID], category, None, metadata, problem="no uri")
        uri = row[_URI] if _ABSOLUTE.match(row[_URI]) else absolute_uri(folder, row[_URI])
        return PhotoRef(row[_ID], category, uri, metadata)


@contextmanager
def _open_batches(folder: Folder, name: str) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """The schema of a file, and its rows in batches."""
    with folder.open(name) as file:
        try:
            if name.endswith(".csv"):
                types = dict.fromkeys((_ID, _URI, _CATEGORY), pa.string())
                options = pc.ConvertOptions(column_types=types, strings_can_be_null=True)
                csv = pc.open_csv(file, convert_options=options)
                yield csv.schema, iter(csv)
            else:
                parquet = with_retries(lambda: pq.ParquetFile(file))
                yield parquet.schema_arrow, parquet.iter_batches(PART_SIZE)
        except pa.ArrowException as error:
            raise InputError(f"{folder.uri}/{name}: not a readable table ({error})") from error
