"""Reading VECTORS: the rows of Parquet files, or of an array and its rows, each row checked."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stbir.errors import InputError
from stbir.gallery.table import VECTOR
from stbir.storage.folder import Folder

ARRAY_FILE, ROWS_FILE = "vectors.npy", "rows.parquet"
BATCH_ROWS = 16_384
REQUIRED_COLUMNS = ("photo_id", "category")
_POSITION = 2  # of the vectors among the columns


def read_vectors(source: Folder) -> Iterator[pa.Table]:
    """The rows of all files in tables of one schema, with unit vectors as the third column.

    Raises InputError, naming file and column, and the row where one is at fault: for files that cannot be
    read, missing columns, wrong types, vectors of another length, and vectors that have no direction.
    """
    tables = _read_array(source) if source.exists(ARRAY_FILE) else _read_parquet(source)
    schema: pa.Schema | None = None
    for path, table in tables:
        schema = schema or table.schema.remove_metadata()
        try:
            yield table.cast(schema)
        except (ValueError, pa.ArrowException) as error:
            raise InputError(f"{path}: {error}; give all files the same columns and types") from error
    if schema is None:
        raise InputError(f"{source.uri}: no rows in *.parquet; write some with ray_jobs/gallery.py export")


def _read_parquet(source: Folder) -> Iterator[tuple[str, pa.Table]]:
    dim: int | None = None
    for name in source.list_files("*.parquet"):
        path, first_row = f"{source.uri}/{name}", 0
        with source.open(name) as file:
            for table in _read_batches(file, path, (*REQUIRED_COLUMNS, VECTOR)):
                column = table[VECTOR].combine_chunks()
                location = f"{path}: column {VECTOR}"
                dim = _check_lengths(column, dim, location, first_row)
                photo_ND = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
                yield path, _insert_vectors(table.drop_columns([VECTOR]), photo_ND, location, first_row)
                first_row += len(table)


def _read_array(source: Folder) -> Iterator[tuple[str, pa.Table]]:
    path, rows_path, first_row = f"{source.uri}/{ARRAY_FILE}", f"{source.uri}/{ROWS_FILE}", 0
    if not source.exists(ROWS_FILE):
        raise InputError(f"{rows_path}: missing; it needs a row for each vector of {ARRAY_FILE}")
    with source.open(ARRAY_FILE) as array, source.open(ROWS_FILE) as rows:
        dim = _check_array(array, path, rows_path, rows)
        for table in _read_batches(rows, rows_path, REQUIRED_COLUMNS):
            data = array.read(4 * dim * len(table))
            if len(data) < 4 * dim * len(table):
                raise InputError(f"{path}: ends before row {first_row + len(table) - 1}; copy it again")
            photo_ND = np.frombuffer(data, "<f4").reshape(len(table), dim)
            yield path, _insert_vectors(table, photo_ND, path, first_row)
            first_row += len(table)


def _check_array(array: BinaryIO, path: str, rows_path: str, rows: BinaryIO) -> int:
    """The dimension of the vectors, after the header of the array is read."""
    try:
        np.lib.format.read_magic(array)
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(array)
    except ValueError as error:
        raise InputError(f"{path}: not a NumPy array of version 1 ({error}); save it again") from error
    with _translate_errors(rows_path):
        num_rows = pq.ParquetFile(rows).metadata.num_rows
    if len(shape) != 2 or shape[0] != num_rows or is_fortran or dtype != np.dtype("<f4"):
        actual = f"{' x '.join(map(str, shape))} of {dtype}, and {num_rows} rows in {ROWS_FILE}"
        raise InputError(f"{path}: {actual}; needs a row of float32 for each")
    return int(shape[1])


def _read_batches(file: BinaryIO, path: str, columns: tuple[str, ...]) -> Iterator[pa.Table]:
    """The non-empty batches of a Parquet file, with ids and categories as strings."""
    with _translate_errors(path):
        parquet = pq.ParquetFile(file)
    _check_columns(parquet.schema_arrow, path, columns)
    batches = parquet.iter_batches(BATCH_ROWS)
    while True:
        with _translate_errors(path):
            batch = next(batches, None)
        if batch is None:
            return
        table = pa.table(batch)
        for name in REQUIRED_COLUMNS:
            position = table.schema.get_field_index(name)
            field = table.schema.field(name).with_type(pa.string())
            table = table.set_column(position, field, table[name].cast(pa.string()))
        if len(table):
            yield table


@contextmanager
def _translate_errors(path: str) -> Iterator[None]:
    # Arrow reports some damage as an OSError.
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({error}); write it again") from error


def _check_columns(schema: pa.Schema, path: str, columns: tuple[str, ...]) -> None:
    for column in columns:
        if (count := schema.names.count(column)) != 1:
            raise InputError(f"{path}: column {column} is {'in it twice' if count else 'missing'}")
        data_type, is_vector = schema.field(column).type, column == VECTOR
        if not (_is_number_list(data_type) if is_vector else _is_string(data_type)):
            expected = "lists of numbers" if is_vector else "strings"
            raise InputError(f"{path}: column {column}: {data_type}; store it as {expected}")


def _is_string(data_type: pa.DataType) -> bool:
    value_type = data_type.value_type if pa.types.is_dictionary(data_type) else data_type
    is_types = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_type(value_type) for is_type in is_types)


def _is_number_list(data_type: pa.DataType) -> bool:
    is_types = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    is_list = any(is_type(data_type) for is_type in is_types)
    return is_list and bool(
        pa.types.is_floating(data_type.value_type) or pa.types.is_integer(data_type.value_type)
    )


def _check_lengths(column: Any, dim: int | None, location: str, first_row: int) -> int:
    """The length of all vectors: `dim`, or if that is None, the length of the first one."""
    length_N = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    _check_rows(column.is_valid(), "has no vector", location, first_row)
    dim = int(length_N[0]) if dim is None else dim
    if dim == 0:
        raise InputError(f"{location}: row {first_row} has an empty vector; embed its photo again")
    [*wrong] = np.flatnonzero(length_N != dim)[:1]
    if wrong:
        fault = f"row {first_row + wrong[0]} has {length_N[wrong[0]]:.0f} of {dim} numbers"
        raise InputError(f"{location}: {fault}; each row needs as many as the first")
    if column.flatten().null_count:
        is_valid = column.flatten().is_valid().to_numpy(zero_copy_only=False).reshape(-1, dim)
        _check_rows(is_valid.all(axis=1), "has a null in its vector", location, first_row)
    return dim


def _check_rows(is_valid_N: Any, fault: str, location: str, first_row: int) -> None:
    invalid = np.flatnonzero(~np.asarray(is_valid_N, bool))
    if len(invalid):
        raise InputError(f"{location}: row {first_row + invalid[0]} {fault}; embed its photo again")


def _insert_vectors(
    table: pa.Table, photo_ND: np.ndarray[Any, Any], location: str, first_row: int
) -> pa.Table:
    """The table with normalised vectors as its third column."""
    photo_ND = photo_ND.astype(np.float64)
    with np.errstate(over="ignore"):  # an infinite length is refused
        lengths = np.linalg.norm(photo_ND, axis=1)
    is_valid = np.isfinite(lengths) & (lengths > 0)
    _check_rows(is_valid, "has a zero or non-finite vector", location, first_row)
    # Unit vectors stay equal to the bit, so that an exported gallery keeps its digest.
    scale = np.where(abs(lengths - 1) < 1e-6, 1, lengths)
    flat = np.asarray(photo_ND / scale[:, None], np.float32).ravel()
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat), photo_ND.shape[1])
    return table.add_column(_POSITION, pa.field(VECTOR, column.type, nullable=False), column)
