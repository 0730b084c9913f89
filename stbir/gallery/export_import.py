"""VECTORS: a gallery as plain files that anything reads, and back. Parquet holds every column of a row;
`.npy` the vectors alone as one array, beside a Parquet file with the rest of each row in the same order."""

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
from stbir.gallery.rows import VECTOR, vectors
from stbir.storage.folder import Folder
from stbir.storage.manifest import NAME, Manifest, write_manifest

_ARRAY, _ROWS, _PART = "vectors.npy", "rows.parquet", "part-00000.parquet"
_AT_ONCE = 16_384
_NEEDED = ("photo_id", "category")


def export(dataset: lance.LanceDataset, checkpoint: str, out: Folder, form: ExportFormat) -> Manifest:
    """Write a version's rows, and last a manifest with the digest of the checkpoint that made them. An export
    that lies there goes, whatever its form."""
    for name in (NAME, _ARRAY, _ROWS, _PART):
        out.remove(name)
    rows, dim = dataset.count_rows(), dataset.schema.field(VECTOR).type.list_size
    digest = hashlib.sha256()
    batches = _hashed(dataset.to_batches(batch_size=_AT_ONCE), digest)
    if form == "parquet":
        _write_parquet(out, _PART, batches, dataset.schema)
    else:
        _write_array(out, batches, dataset.schema, (rows, dim))
    details = {"form": form, "dim": dim, "version": dataset.version}
    manifest = Manifest("vectors", f"sha256:{digest.hexdigest()}", {"ok": rows}, checkpoint, details)
    write_manifest(out, manifest)
    return manifest


def load(source: Folder, folder: Folder) -> int:
    """Write what lies in `source` as a new, unpublished version of the gallery's table; returns the version.

    `source` holds Parquet files with photo_id, category, embedding and any other columns, or vectors.npy and
    rows.parquet. The vectors get unit length. Raises InputError, naming file and row, for what is missing
    or no number, and for a photo that comes twice.
    """
    names = source.names("*.parquet")
    if not names:
        raise InputError(f"{source.uri}: no *.parquet there; export one with ray_jobs/gallery.py export")
    tables = _array_rows(source) if source.exists(_ARRAY) else _parquet_rows(source, names)
    first = next(tables)
    refusals: list[InputError] = []
    batches = _checked(chain([first], tables), first.schema, refusals)
    whole = pa.RecordBatchReader.from_batches(first.schema, batches)
    try:
        return int(lance.write_dataset(whole, table_uri(folder), mode="overwrite").version)
    except OSError:
        if refusals:  # Lance has made an error of its own of it
            raise refusals[0] from None
        raise


def _hashed(batches: Iterator[pa.RecordBatch], digest: "hashlib._Hash") -> Iterator[pa.RecordBatch]:
    for batch in batches:
        digest.update("".join(f"{photo_id}\0" for photo_id in batch["photo_id"].to_pylist()).encode())
        digest.update(vectors(batch).tobytes())
        yield batch


def _write_parquet(out: Folder, name: str, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
    plain = schema.remove_metadata()
    with out.writing(name) as file, pq.ParquetWriter(file, plain, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(None))


def _write_array(
    out: Folder, batches: Iterator[pa.RecordBatch], schema: pa.Schema, shape: tuple[int, int]
) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}

    def others() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            array.write(vectors(batch).astype("<f4").tobytes())
            yield batch.drop_columns([VECTOR])

    with out.writing(_ARRAY) as array:
        np.lib.format.write_array_header_1_0(array, header)
        _write_parquet(out, _ROWS, others(), schema.remove(schema.get_field_index(VECTOR)))


def _parquet_rows(source: Folder, names: list[str]) -> Iterator[pa.Table]:
    for name in names:
        with source.open(name) as file:
            parts = pq.ParquetFile(file)
            for batch in parts.iter_batches(_AT_ONCE):
                table = pa.Table.from_batches([batch])
                for column in (*_NEEDED, VECTOR):
                    if column not in table.column_names:
                        raise InputError(f"{source.uri}/{name}: column {column} is missing")
                yield _with_vectors(table.drop_columns([VECTOR]), _listed(table, f"{source.uri}/{name}"))


def _array_rows(source: Folder) -> Iterator[pa.Table]:
    with source.open(_ARRAY) as array, source.open(_ROWS) as rows:
        np.lib.format.read_magic(array)
        (count, dim), fortran, kind = np.lib.format.read_array_header_1_0(array)
        parts = pq.ParquetFile(rows)
        if parts.metadata.num_rows != count or fortran or kind != np.dtype("<f4"):
            what = f"{count} x {dim} of {kind}, and {parts.metadata.num_rows} rows in {_ROWS}"
            raise InputError(f"{source.uri}/{_ARRAY}: {what}; float32 in rows, one each, is needed")
        for batch in parts.iter_batches(_AT_ONCE):
            flat = np.frombuffer(array.read(4 * dim * len(batch)), "<f4")
            yield _with_vectors(pa.Table.from_batches([batch]), flat.reshape(len(batch), dim))


def _listed(table: pa.Table, where: str) -> np.ndarray:
    column = table[VECTOR].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    if column.null_count or len(flat) % len(table) or len(flat) != len(table) * len(column[0]):
        raise InputError(f"{where}: column {VECTOR}: every row needs as many numbers")
    return np.asarray(flat, np.float32).reshape(len(table), -1)


def _with_vectors(others: pa.Table, photo_ND: np.ndarray) -> pa.Table:
    lengths = np.linalg.norm(photo_ND, axis=1)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        photo_id = others["photo_id"][int(bad[0])].as_py()
        raise InputError(f"{VECTOR}: that of photo {photo_id!r} has no direction; embed it again")
    # A vector of unit length but for rounding stays as it is, to the last bit.
    scale = np.where(abs(lengths - 1) < 1e-6, 1, lengths)
    flat = np.asarray(photo_ND / scale[:, None], np.float32).ravel()
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat), photo_ND.shape[1])
    at = min(2, others.num_columns)
    return others.add_column(at, pa.field(VECTOR, column.type, nullable=False), column)


def _checked(
    tables: Iterator[pa.Table], schema: pa.Schema, refusals: list[InputError]
) -> Iterator[pa.RecordBatch]:
    """The batches of all tables; what is wrong with one is noted before it is raised."""
    seen: set[str] = set()
    try:
        for table in tables:
            _check(table, seen)
            yield from table.cast(schema).to_batches()
    except InputError as error:
        refusals.append(error)
        raise


def _check(table: pa.Table, seen: set[str]) -> None:
    for column in _NEEDED:
        if table[column].null_count:
            raise InputError(f"{column}: {table[column].null_count} rows have none; fill them in")
    for photo_id in table["photo_id"].to_pylist():
        if photo_id in seen:
            raise InputError(f"photo_id: {photo_id!r} comes twice; each photo is one row")
        seen.add(photo_id)
