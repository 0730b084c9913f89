"""A Parquet or CSV table of photos: `photo_id`, `uri`, and if wanted `category`; the rest is metadata.

A relative `uri` is relative to the table's file; any other is what fsspec opens. With http(s) that is a plain
GET without credentials, as fast as sixteen readers a task go: no robots.txt is asked and no rate is kept. Who
has links into the web should download them first, politely.
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

from stbir.catalogue.fields import check_name, simple_type
from stbir.catalogue.files import files_of
from stbir.catalogue.photo import NO_CATEGORY, PART, Listed, Part, Photo, in_parts
from stbir.catalogue.reading import read_listed
from stbir.data.sources.entry import absolute
from stbir.data.validation import Fault
from stbir.errors import InputError
from stbir.storage.folder import Folder
from stbir.storage.retry import patiently

_ID, _URI, _CATEGORY = "photo_id", "uri", "category"
_FULL = re.compile(r"/|[a-z][a-z0-9+.-]*:")


@dataclass(frozen=True)
class TableCatalogue:
    """The rows of one file, or of all Parquet files of a folder in the order of their names."""

    uri: str

    @cached_property
    def fields(self) -> pa.Schema:
        """As in Catalogue; `uri` stays as the table has it. Raises InputError for names or types that cannot
        be kept."""
        schema = self._schema
        names = [name for name in schema.names if name not in (_ID, _CATEGORY)]
        for name in names:
            check_name(name, f"{self.uri}: column {name}")
        kinds = [simple_type(schema.field(name).type, f"{self.uri}: column {name}") for name in names]
        return pa.schema(list(zip(names, kinds, strict=True)))

    def count(self) -> int:
        """As in Catalogue."""
        return sum(table.num_rows for _, table in self._tables())

    def parts(self) -> Iterator[Part]:
        """As in Catalogue. In memory lies one batch of rows at a time."""
        return in_parts(self._listed())

    def read(self, part: Part) -> Iterator[Photo | Fault]:
        """As in Catalogue."""
        return read_listed(part.place)

    @property
    def _files(self) -> tuple[Folder, list[str]]:
        folder, names = files_of(self.uri, (".parquet", ".csv"), "*.parquet")
        if not names:
            raise InputError(
                f"{self.uri}: no table there; give a .parquet or .csv file, or a folder of .parquet"
            )
        return folder, names

    @cached_property
    def _schema(self) -> pa.Schema:
        folder, names = self._files
        with _batches(folder, names[0]) as (schema, _):
            missing = [name for name in (_ID, _URI) if name not in schema.names]
        if missing:
            raise InputError(
                f"{folder.uri}/{names[0]}: no column {' and no '.join(missing)}; there is"
                f" {', '.join(schema.names)}; rename what holds the photo's id and where it lies"
            )
        return schema

    def _tables(self) -> Iterator[tuple[str, pa.Table]]:
        folder, names = self._files
        for name in names:
            with _batches(folder, name) as (schema, batches):
                if schema.names != self._schema.names:
                    raise InputError(
                        f"{folder.uri}/{name}: other columns than {names[0]}; make them the same"
                    )
                for batch in batches:
                    yield name, pa.table(batch)

    def _listed(self) -> Iterator[Listed]:
        folder, _ = self._files
        number = 0
        for file, table in self._tables():
            for row in self._converted(table, file).to_pylist():
                number += 1
                yield self._row(folder, row, f"{file}:{number}")

    def _converted(self, table: pa.Table, file: str) -> pa.Table:
        kinds = {_ID: pa.string(), _CATEGORY: pa.string()}
        kinds |= {field.name: field.type for field in self.fields}
        there = {name: table[name] for name in table.column_names}
        try:
            return pa.table({name: column.cast(kinds[name]) for name, column in there.items()})
        except pa.ArrowException as error:
            raise InputError(f"{self.uri}: {file}: {error}; make each column one type") from error

    def _row(self, folder: Folder, row: dict[str, Any], where: str) -> Listed:
        facts = tuple(row[name] for name in self.fields.names)
        category = row.get(_CATEGORY) or NO_CATEGORY
        if not row[_ID]:
            return Listed(where, category, None, facts, problem="no photo_id")
        if not row[_URI]:
            return Listed(row[_ID], category, None, facts, problem="no uri")
        uri = row[_URI] if _FULL.match(row[_URI]) else absolute(folder, row[_URI])
        return Listed(row[_ID], category, uri, facts)


@contextmanager
def _batches(folder: Folder, name: str) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """The columns of a file and its rows, some at a time."""
    with folder.open(name) as file:
        try:
            if name.endswith(".csv"):
                text = dict.fromkeys((_ID, _URI, _CATEGORY), pa.string())
                options = pc.ConvertOptions(column_types=text, strings_can_be_null=True)
                csv = pc.open_csv(file, convert_options=options)
                yield csv.schema, iter(csv)
            else:
                parquet = patiently(lambda: pq.ParquetFile(file))
                yield parquet.schema_arrow, parquet.iter_batches(PART)
        except pa.ArrowException as error:
            raise InputError(f"{folder.uri}/{name}: not a readable table ({error})") from error
