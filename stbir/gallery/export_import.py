"""VECTORS: a gallery as plain files, exported and imported. Parquet holds all columns of a row. `npy` is one
array of vectors, with a Parquet file of the other columns in the same order."""

from collections.abc import Callable, Collection, Iterator
from itertools import chain
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stbir.config.choices import ExportFormat
from stbir.errors import InputError, JobFailedError
from stbir.gallery.digest import RowsDigest, rows_digest
from stbir.gallery.identity_store import IdentityStore
from stbir.gallery.origin import read_origin, write_origin
from stbir.gallery.rows import extract_vectors
from stbir.gallery.store import open_store
from stbir.gallery.table import VECTOR, Table, dimension
from stbir.gallery.vector_files import ARRAY_FILE, BATCH_ROWS, REQUIRED_COLUMNS, ROWS_FILE, read_vectors
from stbir.storage.folder import Folder
from stbir.storage.manifest import MANIFEST_FILE, Manifest, write_manifest

_PART = "part-00000.parquet"
ROWS_DIGEST = "rows_digest"  # in the details of the manifest; exports of earlier versions have none
T = TypeVar("T", pa.Table, pa.RecordBatch)


def export_table(
    table: Table,
    checkpoint: str,
    out: Folder,
    format: ExportFormat,
    check: Callable[[], None] = lambda: None,
) -> Manifest:
    """Write a version's rows, and a manifest with the digest of checkpoint, ids and vectors. Replaces an
    earlier export.

    `check` is called before anything is removed and before the manifest is written, and may raise an error.
    """
    check()
    for name in (MANIFEST_FILE, ARRAY_FILE, ROWS_FILE, _PART):
        out.remove(name)
    rows, dim = table.count_rows(), dimension(table.schema)
    digest = RowsDigest(checkpoint)
    batches = _hash_batches(table.to_batches(batch_size=BATCH_ROWS), digest)
    if format == "parquet":
        _write_parquet(out, _PART, batches, table.schema)
    else:
        _write_array(out, batches, table.schema, (rows, dim))
    details = {"form": format, "dim": dim, "version": table.version, ROWS_DIGEST: str(digest)}
    manifest = Manifest("vectors", str(digest), {"ok": rows}, checkpoint, details)
    check()
    write_manifest(out, manifest, out.file_sizes([_PART] if format == "parquet" else [ARRAY_FILE, ROWS_FILE]))
    return manifest


def import_table(
    source: Folder,
    folder: Folder,
    check: Callable[[Collection[str]], None] = lambda _: None,
    exported: Manifest | None = None,
) -> int:
    """Write the vectors of `source` as a new, unpublished version of the table; returns its number.

    `source` holds Parquet files with photo_id, category, embedding and any other columns, or vectors.npy and
    rows.parquet. Vectors are normalised to unit length. `check` receives the photo ids of all rows before the
    version is committed, and may raise InputError. `exported` is the manifest of `export_table`, if there is
    one: one with ROWS_DIGEST proves that each vector belongs to its id and to the checkpoint.

    Raises InputError, naming file and row, for missing columns, invalid values and duplicate ids, and for
    rows that differ from those of `exported`.
    """
    tables = read_vectors(source)
    head = next(tables)
    errors: list[InputError] = []
    digest = RowsDigest(exported.made_from if exported else "")

    def check_all(photo_ids: Collection[str]) -> None:
        check(photo_ids)
        _verify(digest, exported, source)

    tables = _hash_batches(chain([head], tables), digest)
    batches = _validated_batches(tables, head.schema, check_all, errors)
    try:
        return open_store(folder).write(head.schema, batches)
    except InputError:
        if errors:  # Lance replaces an exception of the reader by its own
            raise errors[0] from None
        raise


def copy_table(
    table: Table, source: Folder, target: Folder, check: Callable[[Collection[str]], None] = lambda _: None
) -> int:
    """Copy a version of a gallery into another, which may be in another store, as a new, unpublished version;
    returns its number. Rows, their order, and the origin of the photos are the same.

    `check` is that of `import_table`. Raises JobFailedError if the copy reads back with other rows.
    """
    digest, schema, photo_ids = RowsDigest(), table.schema.remove_metadata(), set[str]()

    def rows() -> Iterator[pa.RecordBatch]:
        for batch in _hash_batches(table.to_batches(), digest):
            photo_ids.update(batch["photo_id"].to_pylist())
            yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
        check(photo_ids)

    version = open_store(target).write(schema, rows())
    copy = open_store(target).open(version)
    if (copied := rows_digest(copy)) != str(digest):
        problem = f"{target.uri}: the copy has the digest {copied}, its source {digest}; not published"
        raise JobFailedError(f"{problem}, run it again", {"rows": copy.count_rows()})
    write_origin(copy, read_origin(table))
    identities = IdentityStore(target)
    for entries in IdentityStore(source).read():
        identities.append(entries)
    return int(copy.version)


def _hash_batches(batches: Iterator[T], digest: RowsDigest) -> Iterator[T]:
    for batch in batches:
        digest.add(batch)
        yield batch


def _verify(digest: RowsDigest, exported: Manifest | None, source: Folder) -> None:
    expected = exported and exported.details.get(ROWS_DIGEST)
    if expected not in (None, str(digest)):
        problem = "photo ids, vectors or checkpoint are not those that were exported"
        remedy = f"copy all files again, or remove {MANIFEST_FILE} and name their checkpoint by --checkpoint"
        raise InputError(f"{source.uri}: {problem}; {remedy}")


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

    with out.open_for_writing(ARRAY_FILE) as array:
        np.lib.format.write_array_header_1_0(array, header)
        _write_parquet(out, ROWS_FILE, write_vectors(), schema.remove(schema.get_field_index(VECTOR)))


def _validated_batches(
    tables: Iterator[pa.Table],
    schema: pa.Schema,
    check: Callable[[Collection[str]], None],
    errors: list[InputError],
) -> Iterator[pa.RecordBatch]:
    """The batches of all tables. Appends an error to `errors` before raising it."""
    seen: set[str] = set()
    try:
        for table in tables:
            _validate(table, seen)
            yield from table.cast(schema).to_batches()
        check(seen)
    except InputError as error:
        errors.append(error)
        raise


def _validate(table: pa.Table, seen: set[str]) -> None:
    for column in REQUIRED_COLUMNS:
        if table[column].null_count:
            raise InputError(f"{column}: {table[column].null_count} rows have none; fill them in")
    for photo_id in table["photo_id"].to_pylist():
        if photo_id in seen:
            raise InputError(f"photo_id: {photo_id!r} is not unique; keep one row for each photo")
        seen.add(photo_id)
