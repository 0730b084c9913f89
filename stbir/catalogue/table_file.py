"""One file of a table, Parquet or CSV: its columns, and its rows in batches."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from stbir.catalogue import csv_file
from stbir.catalogue.photo import PART_SIZE
from stbir.errors import InputError
from stbir.storage.folder import Folder
from stbir.storage.retry import with_retries


def read_schema(folder: Folder, name: str) -> pa.Schema:
    """The columns of a file. Reads all rows of a CSV file to find the types. Raises as `open_batches`."""
    with open_batches(folder, name) as (schema, batches):
        has_types = not name.endswith(".csv") or len(set(schema.names)) < len(schema.names)
        return schema if has_types else csv_file.infer_types(batches, schema)


@contextmanager
def open_batches(folder: Folder, name: str) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """The columns of a file and its rows; a CSV file has text columns.

    Raises InputError, also while the rows are read, for a file that is not a table, or not a complete one.
    """
    with folder.open(name) as file:
        try:
            if name.endswith(".csv"):
                csv = csv_file.open_csv(file)
                yield csv.schema, csv_file.read_batches(file, csv)
            else:
                parquet = with_retries(lambda: pq.ParquetFile(file))
                yield parquet.schema_arrow, _read_parquet(parquet)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise InputError(f"{folder.uri}/{name}: not a readable table ({error})") from error


def _read_parquet(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    num_rows = 0
    for batch in file.iter_batches(PART_SIZE):
        num_rows += len(batch)
        yield batch
    if num_rows != file.metadata.num_rows:
        raise pa.ArrowInvalid(f"{num_rows} rows were read, the file has {file.metadata.num_rows}")
