"""One file of a table (Parquet, CSV, TSV or JSON Lines): its columns, and its rows in batches."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from stbir.errors import InputError
from stbir.storage import csv_file
from stbir.storage.folder import Folder
from stbir.storage.retry import with_retries

BATCH_SIZE = 256  # rows
DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (".parquet", *DELIMITERS, ".jsonl")


def read_schema(folder: Folder, name: str) -> pa.Schema:
    """The columns of a file. Reads all rows of a text file to find the types. Raises as `open_batches`."""
    with open_batches(folder, name) as (schema, batches):
        has_types = _delimiter(name) is None or len(set(schema.names)) < len(schema.names)
        return schema if has_types else csv_file.infer_types(batches, schema)


@contextmanager
def open_batches(folder: Folder, name: str) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """The columns of a file and its rows; a CSV or TSV file has text columns.

    A JSON Lines file is read into memory. Raises InputError, also while the rows are read, for a file that
    is not a table, or not a complete one.
    """
    with folder.open(name) as file:
        try:
            if delimiter := _delimiter(name):
                csv = csv_file.open_csv(file, delimiter)
                yield csv.schema, csv_file.read_batches(file, csv, delimiter)
            elif name.endswith(".jsonl"):
                table = _read_json_lines(file)
                yield table.schema, iter(table.to_batches(BATCH_SIZE))
            else:
                parquet = with_retries(lambda: pq.ParquetFile(file))
                yield parquet.schema_arrow, _read_parquet(parquet)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise InputError(f"{folder.uri}/{name}: not a readable table ({error})") from error


def _delimiter(name: str) -> str | None:
    """What separates the fields of a text file; None for other files."""
    return next((each for suffix, each in DELIMITERS.items() if name.endswith(suffix)), None)


def _read_parquet(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    num_rows = 0
    for batch in file.iter_batches(BATCH_SIZE):
        num_rows += len(batch)
        yield batch
    if num_rows != file.metadata.num_rows:
        raise pa.ArrowInvalid(f"{num_rows} rows were read, the file has {file.metadata.num_rows}")


def _read_json_lines(file: BinaryIO) -> pa.Table:
    """A column for each key of any line; a line without the key has null."""
    lines = file.read().decode("utf-8-sig").split("\n")
    rows = [_parse(line, number) for number, line in enumerate(lines, start=1) if line.strip()]
    names = dict.fromkeys(key for row in rows for key in row)
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


def _parse(line: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise pa.ArrowInvalid(f"line {number}: {error}") from error
    if not isinstance(row, dict):
        raise pa.ArrowInvalid(f"line {number}: not a JSON object")
    return row
