"""VECTORS: a gallery as plain files, written and read. Parquet holds all columns of a row. `npy` is one array
of vectors, with a Parquet file of the other columns in the same order."""

import hashlib
from collections.abc import Iterator
from itertools import chain

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stbir.config.choices import ExportFormat
from stbir.errors import InputError
from stbir.gallery.gallery import table_uri
from stbir.gallery.rows import VECTOR, extract_vectors
from stbir.storage.folder import Folder
from stbir.storage.manifest import MANIFEST_FILE, Manifest, write_manifest

_ARRAY, _ROWS, _PART = "vectors.npy", "rows.parquet", "part-00000.parquet"
_BATCH_ROWS = 16_384
_REQUIRED_COLUMNS = ("photo_id", "category")


def export_table(dataset: lance.LanceDataset, checkpoint: str, out: Folder, format: ExportFormat) -> Manifest:
    """Write a version's rows and a manifest with the checkpoint's digest. Replaces an earlier export."""
    for name in (MANIFEST_FILE, _ARRAY, _ROWS, _PART):
        out.remove(name)
    rows, dim = dataset.count_rows(), dataset.schema.field(VECTOR).type.list_size
    digest = hashlib.sha256()
    batches = _hash_batches(dataset.to_batches(batch_size=_BATCH_ROWS), digest)
    if format == "parquet":
        _write_parquet(out, _PART, batches, dataset.schema)
    else:
        _write_array(out, batches, dataset.schema, (rows, dim))
    details = {"form": format, "dim": dim, "version": dataset.version}
    manifest = Manifest("vectors", f"sha256:{digest.hexdigest()}", {"ok": rows}, checkpoint, details)
    write_manifest(out, manifest, out.file_sizes([_PART] if format == "parquet" else [_ARRAY, _ROWS]))
    return manifest


def import_table(source: Folder, folder: Folder) -> int:
    """Write the vectors of `source` as a new, unpublished version of the table; returns its number.

    `source` holds Parquet files with photo_id, category, embedding and any other columns, or vectors.npy and
    rows.parquet. Vectors are normalised to unit length. Raises InputError, naming file and row, for missing
    columns, invalid values and duplicate ids.
    """
    names = source.list_files("*.parquet")
    if not names:
        raise InputError(f"{source.uri}: no *.parquet here; write some with ray_jobs/gallery.py export")
    tables = _read_array(source) if source.exists(_ARRAY) else _read_parquet(source, names)
    head = next(tables)
    errors: list[InputError] = []
    batches = _validated_batches(chain([head], tables), head.schema, errors)
    reader = pa.RecordBatchReader.from_batches(head.schema, batches)
    try:
        return int(lance.write_dataset(reader, table_uri(folder), mode="overwrite").version)
    except OSError:
        if errors:  # Lance replaces an exception of the reader by its own
            raise errors[0] from None
        raise


def _hash_batches(batches: Iterator[pa.RecordBatch], digest: "hashlib._Hash") -> Iterator[pa.RecordBatch]:
    for batch in batches:
        digest.update("".join(f"{photo_id}\0" for photo_id in batch["photo_id"].to_pylist()).encode())
        digest.update(extract_vectors(batch).tobytes())
        yield batch


def _write_parquet(out: Folder, name: str, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
    schema = schema.remove_metadata()
    with out.open_for_writing(name) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(None))


def _write_array(
    out: Folder, batches: Iterator[pa.RecordBatch], schema: pa.Schema, shape: tuple[int, int]
) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}

    def write_vectors() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            array.write(extract_vectors(batch).astype("<f4").tobytes())
            yield batch.drop_columns([VECTOR])

    with out.open_for_writing(_ARRAY) as array:
        np.lib.format.write_array_header_1_0(array, header)
        _write_parquet(out, _ROWS, write_vectors(), schema.remove(schema.get_field_index(VECTOR)))


def _read_parquet(source: Folder, names: list[str]) -> Iterator[pa.Table]:
    for name in names:
        path = f"{source.uri}/{name}"
        with source.open(name) as file:
            for batch in pq.ParquetFile(file).iter_batches(_BATCH_ROWS):
                table = pa.Table.from_batches([batch])
                for column in (*_REQUIRED_COLUMNS, VECTOR):
                    if column not in table.column_names:
                        raise InputError(f"{path}: column {column} is missing")
                yield _insert_vectors(table.drop_columns([VECTOR]), _list_column_to_array(table, path))


def _read_array(source: Folder) -> Iterator[pa.Table]:
    with source.open(_ARRAY) as array, source.open(_ROWS) as rows:
        np.lib.format.read_magic(array)
        (count, dim), is_fortran, dtype = np.lib.format.read_array_header_1_0(array)
        parquet = pq.ParquetFile(rows)
        if parquet.metadata.num_rows != count or is_fortran or dtype != np.dtype("<f4"):
            actual = f"{count} x {dim} of {dtype}, and {parquet.metadata.num_rows} rows in {_ROWS}"
            raise InputError(f"{source.uri}/{_ARRAY}: {actual}; needs a row of float32 for each")
        for batch in parquet.iter_batches(_BATCH_ROWS):
            flat = np.frombuffer(array.read(4 * dim * len(batch)), "<f4")
            yield _insert_vectors(pa.Table.from_batches([batch]), flat.reshape(len(batch), dim))


def _list_column_to_array(table: pa.Table, path: str) -> np.ndarray:
    column = table[VECTOR].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    if column.null_count or len(flat) % len(table) or len(flat) != len(table) * len(column[0]):
        raise InputError(f"{path}: column {VECTOR}: rows differ in length; each needs as many numbers")
    return np.asarray(flat, np.float32).reshape(len(table), -1)


def _insert_vectors(table: pa.Table, photo_ND: np.ndarray) -> pa.Table:
    """The table with normalised vectors as its third column."""
    lengths = np.linalg.norm(photo_ND, axis=1)
    invalid = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(invalid):
        photo_id = table["photo_id"][int(invalid[0])].as_py()
        raise InputError(f"{VECTOR}: photo {photo_id!r} has a zero or non-finite vector; embed it again")
    # Unit vectors stay equal to the bit, so that an exported gallery keeps its digest.
    scale = np.where(abs(lengths - 1) < 1e-6, 1, lengths)
    flat = np.asarray(photo_ND / scale[:, None], np.float32).ravel()
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat), photo_ND.shape[1])
    position = min(2, table.num_columns)
    return table.add_column(position, pa.field(VECTOR, column.type, nullable=False), column)


def _validated_batches(
    tables: Iterator[pa.Table], schema: pa.Schema, errors: list[InputError]
) -> Iterator[pa.RecordBatch]:
    """The batches of all tables. Appends an error to `errors` before raising it."""
    seen: set[str] = set()
    try:
        for table in tables:
            _validate(table, seen)
            yield from table.cast(schema).to_batches()
    except InputError as error:
        errors.append(error)
        raise


def _validate(table: pa.Table, seen: set[str]) -> None:
    for column in _REQUIRED_COLUMNS:
        if table[column].null_count:
            raise InputError(f"{column}: {table[column].null_count} rows have none; fill them in")
    for photo_id in table["photo_id"].to_pylist():
        if photo_id in seen:
            raise InputError(f"photo_id: {photo_id!r} is not unique; keep one row for each photo")
        seen.add(photo_id)
