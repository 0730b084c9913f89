"""Update the table of a gallery from a catalogue: append new photos, delete those that it no longer has.

Every count is checked before the table may be published. Where photos are decoded and encoded is up to the
caller: in this process (`local_pipeline`) or on a cluster.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from stbir.catalogue.folder import FolderCatalogue
from stbir.catalogue.origin import origin
from stbir.catalogue.photo import NOT_TAKEN, Catalogue
from stbir.data.shard_writer import QUARANTINE, write_quarantine
from stbir.data.validation import Fault
from stbir.embedding.change_detection import detect_changes
from stbir.embedding.counts import Counts, count_not_taken
from stbir.embedding.decode import DecodedPart, UnreadPart
from stbir.embedding.removal_guard import RemovalGuard
from stbir.errors import InputError, JobFailedError
from stbir.gallery.arrays import Features
from stbir.gallery.background_writer import BackgroundWriter
from stbir.gallery.existing_rows import ExistingRows, count_changes, read_existing_rows
from stbir.gallery.identity_store import IdentityStore
from stbir.gallery.metadata import is_compatible
from stbir.gallery.origin import write_origin
from stbir.gallery.store import TableWriter
from stbir.gallery.table import Table, schema
from stbir.gallery.table_writer import open_writer, published_version
from stbir.storage.folder import Folder
from stbir.storage.lock import Lock

log = logging.getLogger(__name__)
# Decodes and encodes the unread parts of a catalogue, in order. Vectors (B, D) belong to the decoded photos.
Embed = Callable[[Iterator[DecodedPart | UnreadPart]], Iterator[tuple[DecodedPart, Features]]]
_MAX_LOGGED_FAULTS = 10
_NUM_FIXED_COLUMNS = 5  # of the table; the catalogue's metadata follow


@dataclass(frozen=True)
class EmbeddingSpace:
    """The checkpoint that makes the vectors: its digest, and their dimensions D."""

    checkpoint_digest: str
    dim: int


@dataclass(frozen=True)
class UpdatedTable:
    """An unpublished version. `not_taken`: listed files that are no photos, by reason and kind of file."""

    version: int
    num_rows: int
    counts: dict[str, int]
    not_taken: dict[str, dict[str, int]]


def update_table(
    catalogue: Catalogue,
    folder: Folder,
    lock: Lock,
    space: EmbeddingSpace,
    guard: RemovalGuard,
    embed: Embed,
    max_error_rate: float,
    count_listed: Callable[[], int | None],
) -> UpdatedTable:
    """Bring the latest version of the table in line with the catalogue; the published one stays.

    `count_listed` returns the number of listed files, None if it is unknown, once all are embedded. Raises
    JobFailedError for lost photos or too many bad ones, and InputError as `guard` and `lock` do.
    """
    columns = schema(space.dim, catalogue.fields)
    published, table = published_version(folder), open_writer(folder, columns, space.checkpoint_digest)
    write_origin(table.dataset, origin(catalogue))
    rows, store = read_existing_rows(table.dataset, catalogue.fields.names), IdentityStore(folder)
    rows.assign_identities(store.read())
    parts, writer = embed(detect_changes(catalogue, rows)), BackgroundWriter(table, store, lock)
    counted, faults = _append(parts, columns, writer, rows, guard)
    counts = counted.summary()
    _check_listing(catalogue, count_listed(), counts)
    not_taken = _log_not_taken(faults)
    _check_faults(folder, faults, counts, max_error_rate)
    guard.check()
    lock.check()
    table.delete(rows.stale_row_ids())
    _check_row_count(table, counts["embedded"] + rows.num_retained, counts)
    after = read_existing_rows(table.dataset, catalogue.fields.names)
    counts |= _count_changes(published, table, space.checkpoint_digest, after, catalogue)
    store.compact(after.fingerprints)
    return UpdatedTable(table.dataset.version, table.dataset.count_rows(), counts, not_taken)


def _append(
    parts: Iterator[tuple[DecodedPart, Features]],
    columns: pa.Schema,
    writer: BackgroundWriter,
    rows: ExistingRows,
    guard: RemovalGuard,
) -> tuple[Counts, list[Fault]]:
    """Append the embedded photos to the table; returns all counts, and the faults of the others."""
    counts, faults = Counts(), list[Fault]()
    with writer:
        for decoded, vectors_BD in parts:
            if decoded.photo_ids or decoded.identities:
                writer.add(to_table(decoded, vectors_BD, columns), decoded.identities)
            rows.retain(decoded.existing)
            rows.retain_newest([fault.photo_id for fault in decoded.failed])
            faults += decoded.faults
            guard.add(decoded.photo_ids_in_catalogue)
            counts.add(decoded)
    return counts, faults


def to_table(decoded: DecodedPart, vectors_BD: Features, schema: pa.Schema) -> pa.Table:
    """The rows of the gallery's table."""
    vector_type = schema.field("embedding").type
    metadata = [
        pa.array([values[n] for values in decoded.metadata], field.type)
        for n, field in enumerate(list(schema)[_NUM_FIXED_COLUMNS:])
    ]
    columns = [
        pa.array(decoded.photo_ids, pa.string()),
        pa.array(decoded.categories, pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors_BD.ravel()), vector_type.list_size),
        pa.array(decoded.thumbnails, pa.binary()),
        pa.array(decoded.contents, pa.string()),
        *metadata,
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _count_changes(
    published: Table | None,
    table: TableWriter,
    digest: str,
    after: ExistingRows,
    catalogue: Catalogue,
) -> dict[str, int]:
    """Changes since the published version. If another checkpoint made that one, all photos are new."""
    if published is not None and not is_compatible(published, table.dataset.schema, digest):
        published = None
    counts = count_changes(read_existing_rows(published, catalogue.fields.names), after)
    log.info("%(new)d new, %(changed)d changed, %(removed)d removed", counts)
    return counts


def _check_listing(catalogue: Catalogue, listed: int | None, counts: dict[str, int]) -> None:
    """Compare the numbers of files that were counted and read. A folder may grow during the job; files of
    photos do not change, so that a difference means lost photos. Raises JobFailedError."""
    if listed is None:
        return
    counts["listed"] = listed
    num_read = counts["in"] + counts["not_taken"]
    if listed != num_read:
        difference = f"{num_read} photos were read, {listed} were listed"
        if not isinstance(catalogue, FolderCatalogue):
            raise JobFailedError(f"{difference}; not published, run again", counts)
        log.warning("%s: the folder has changed meanwhile; run again", difference)


def _check_faults(folder: Folder, faults: list[Fault], counts: dict[str, int], max_error_rate: float) -> None:
    """Write the quarantine. Raises JobFailedError for too many errors, InputError if there is no photo."""
    write_quarantine(folder, faults)
    errors = [fault for fault in faults if fault.reason not in NOT_TAKEN]
    for fault in errors[:_MAX_LOGGED_FAULTS]:
        log.warning("not embedded: %s: %s", fault.photo_id, fault.detail or fault.reason)
    log.info(
        "in %(in)d = embedded %(embedded)d + already there %(already_there)d"
        " + quarantined %(quarantined)d + failed %(failed)d; not photos: %(not_taken)d",
        counts,
    )
    log_path = f"see {folder.uri}/{QUARANTINE}; not published"
    if not counts["in"]:
        raise InputError(f"--photos: none of the {counts['not_taken']} listed files is a photo, {log_path}")
    if len(errors) > max_error_rate * counts["in"] or not counts["ok"]:
        by_reason = Counter(fault.reason for fault in errors).most_common()
        reasons = ", ".join(f"{n} x {reason}" for reason, n in by_reason)
        message = f"{len(errors)} of {counts['in']} photos cannot be embedded ({reasons})"
        raise JobFailedError(f"{message}, {log_path}", counts)


def _log_not_taken(faults: list[Fault]) -> dict[str, dict[str, int]]:
    counts = count_not_taken(faults)
    for reason, kinds in counts.items():
        log.info("%s: %s", reason, ", ".join(f"{count} {kind}".strip() for kind, count in kinds.items()))
    return counts


def _check_row_count(table: TableWriter, expected: int, counts: dict[str, int]) -> None:
    num_rows = table.dataset.count_rows()
    if num_rows != expected:
        raise JobFailedError(f"the table has {num_rows} rows instead of {expected}; not published", counts)
