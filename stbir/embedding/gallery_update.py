"""Update the table of a gallery from a catalogue: append new photos, delete those that it no longer has.

Every count is checked before the table may be published. Where photos are decoded and encoded is up to the
caller: in this process (`local_pipeline`) or on a cluster. Ids are on disk, not in memory: see `listing`.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from stbir.catalogue.origin import origin
from stbir.catalogue.photo import Catalogue
from stbir.data.shard_writer import QUARANTINE
from stbir.embedding.catalogue_share import CatalogueShare
from stbir.embedding.change_detection import detect_changes
from stbir.embedding.counts import Counts
from stbir.embedding.decode import DecodedPart, UnreadPart
from stbir.embedding.fault_log import FaultLog
from stbir.embedding.listing import Listing
from stbir.embedding.removal_guard import check_removal, count_absent
from stbir.embedding.table_changes import PhotoOutcomes, TableChanges, find_table_changes
from stbir.errors import InputError, JobFailedError
from stbir.gallery.arrays import Features
from stbir.gallery.background_writer import BackgroundWriter
from stbir.gallery.existing_rows import ROW, read_rows, with_identities
from stbir.gallery.identity_store import IdentityStore
from stbir.gallery.metadata import is_compatible
from stbir.gallery.origin import write_origin
from stbir.gallery.partitioned_records import PartitionedRecords, partitioned
from stbir.gallery.store import TableWriter
from stbir.gallery.table import schema
from stbir.gallery.table_writer import open_writer, published_version
from stbir.storage.folder import Folder
from stbir.storage.lock import Lock
from stbir.storage.part_lock import brief_lock

log = logging.getLogger(__name__)
# Decodes and encodes the unread parts of a catalogue, in order. Vectors (B, D) belong to the decoded photos.
Embed = Callable[[Iterator[DecodedPart | UnreadPart]], Iterator[tuple[DecodedPart, Features]]]
_NUM_FIXED_COLUMNS = 5  # of the table; the catalogue's metadata follow


@dataclass(frozen=True)
class EmbeddingSpace:
    """The checkpoint that makes the vectors: its digest, and their dimensions D."""

    checkpoint_digest: str
    dim: int


@dataclass(frozen=True)
class UpdatePlan:
    """A listed catalogue beside the published version of a gallery.

    published: its rows (ROW), without fingerprints if it is not comparable: of another checkpoint or schema.
    version: its number; None if nothing is published.
    """

    listing: Listing
    space: EmbeddingSpace
    max_removed: float
    published: PartitionedRecords
    version: int | None = None
    is_comparable: bool = False


@dataclass(frozen=True)
class UpdatedTable:
    """An unpublished version. `not_taken`: listed files that are no photos, by reason and kind of file."""

    version: int
    num_rows: int
    counts: dict[str, int]
    not_taken: dict[str, dict[str, int]]


def plan_update(
    catalogue: Catalogue, folder: Folder, space: EmbeddingSpace, max_removed: float
) -> UpdatePlan:
    """List a catalogue, and compare it with the published version. Writes nothing to the folder.

    Raises InputError as the catalogue does, and if it lacks too many published photos (`check_removal`).
    """
    published = published_version(folder)
    if published is None:
        return UpdatePlan(Listing(catalogue), space, max_removed, PartitionedRecords(ROW))
    is_comparable = is_compatible(published, schema(space.dim, catalogue.fields), space.checkpoint_digest)
    rows = partitioned(ROW, read_rows(published, catalogue.fields.names if is_comparable else None))
    listing = Listing(catalogue)
    pairs = zip(rows.partitions(), listing.hashes.partitions(), strict=True)
    num_absent = sum(count_absent(each["id"], listed["id"]) for each, listed in pairs)
    check_removal(num_absent, len(rows), max_removed)
    return UpdatePlan(listing, space, max_removed, rows, published.version, is_comparable)


def update_table(
    plan: UpdatePlan, folder: Folder, lock: Lock, embed: Embed, max_error_rate: float
) -> UpdatedTable:
    """Bring the latest version of the table in line with the catalogue; the published one stays.

    Raises JobFailedError for lost photos or too many bad ones, and InputError as `lock` does, and if the
    catalogue lacks too many published photos.
    """
    listing, catalogue = plan.listing, plan.listing.catalogue
    table, store = _open_writer(catalogue, plan.space, folder), IdentityStore(folder)
    is_published = table.dataset.version == plan.version
    rows = with_identities(plan.published if is_published else _read_rows(table, catalogue), store)
    counted, faults, outcomes = _embed(
        listing, plan.space.dim, rows, BackgroundWriter(table, store, lock), embed
    )
    counts = _check_counts(listing, counted, faults, folder, max_error_rate)
    comparable = plan.published if plan.is_comparable else PartitionedRecords(ROW)
    changes = find_table_changes(listing, rows, outcomes, plan.published, comparable)
    check_removal(changes.num_removed, len(plan.published), plan.max_removed)
    lock.check()
    _delete_stale(table, changes, counts)
    log.info("%(new)d new, %(changed)d changed, %(removed)d removed", changes.counts)
    store.compact(changes.after)
    counts |= changes.counts
    return UpdatedTable(table.dataset.version, table.dataset.count_rows(), counts, faults.not_taken())


def append_share(
    listing: Listing,
    share: CatalogueShare,
    space: EmbeddingSpace,
    folder: Folder,
    lock: Lock,
    embed: Embed,
    max_error_rate: float,
) -> dict[str, int]:
    """Append the new photos of a share of a catalogue to the latest version of the table, beside writers of
    other shares; returns the counts. `update_table` for the catalogue finishes the work. The store must allow
    concurrent writers.

    `lock` is that of the share's part. Raises as `update_table`.
    """
    if not listing.num_photos:
        return Counts().summary()  # a small catalogue has no photo of some shares
    with brief_lock(folder):
        table = _open_writer(listing.catalogue, space, folder)
    store = IdentityStore(folder, share.name)
    rows = with_identities(_read_rows(table, listing.catalogue), store)
    counted, faults, _ = _embed(listing, space.dim, rows, BackgroundWriter(table, store, lock), embed)
    return _check_counts(listing, counted, faults, lock.folder, max_error_rate)


def _open_writer(catalogue: Catalogue, space: EmbeddingSpace, folder: Folder) -> TableWriter:
    table = open_writer(folder, schema(space.dim, catalogue.fields), space.checkpoint_digest)
    write_origin(table.dataset, origin(catalogue))
    return table


def _read_rows(table: TableWriter, catalogue: Catalogue) -> PartitionedRecords:
    return partitioned(ROW, read_rows(table.dataset, catalogue.fields.names))


def _embed(
    listing: Listing, dim: int, rows: PartitionedRecords, writer: BackgroundWriter, embed: Embed
) -> tuple[Counts, FaultLog, PhotoOutcomes]:
    """Append the photos to embed to the table; returns all counts, the faults, and what became of photos."""
    columns = schema(dim, listing.catalogue.fields)
    counts, faults, outcomes = Counts(), FaultLog(), PhotoOutcomes()
    with writer:
        for decoded, vectors_BD in embed(detect_changes(listing, rows, outcomes.retained)):
            if decoded.photo_ids or decoded.identities:
                writer.add(to_table(decoded, vectors_BD, columns), decoded.identities)
            outcomes.add(decoded)
            faults.add(decoded.faults)
            counts.add(decoded)
    return counts, faults, outcomes


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


def _check_counts(
    listing: Listing, counted: Counts, faults: FaultLog, folder: Folder, max_error_rate: float
) -> dict[str, int]:
    """The counts. Writes the quarantine to the folder. Raises as `_check_listing` and `_check_faults`."""
    counts = counted.summary()
    _check_listing(listing.num_photos, counts)
    _log_not_taken(faults)
    faults.write(folder)
    _check_faults(folder, faults, counts, max_error_rate)
    return counts


def _check_listing(num_listed: int, counts: dict[str, int]) -> None:
    """Add the number of listed files. Raises JobFailedError if another number was read: photos are lost."""
    counts["listed"] = num_listed
    num_read = counts["in"] + counts["not_taken"]
    if num_listed != num_read:
        difference = f"{num_read} photos were read, {num_listed} were listed"
        raise JobFailedError(f"{difference}; not published, run again", counts)


def _check_faults(folder: Folder, faults: FaultLog, counts: dict[str, int], max_error_rate: float) -> None:
    """Raises JobFailedError for too many errors, InputError if there is no photo."""
    for fault in faults.examples:
        log.warning("not embedded: %s: %s", fault.photo_id, fault.detail or fault.reason)
    log.info(
        "in %(in)d = embedded %(embedded)d + already there %(already_there)d"
        " + quarantined %(quarantined)d + failed %(failed)d; not photos: %(not_taken)d",
        counts,
    )
    log_path = f"see {folder.uri}/{QUARANTINE}; not published"
    if not counts["in"]:
        raise InputError(f"--photos: none of the {counts['not_taken']} listed files is a photo, {log_path}")
    if faults.num_errors > max_error_rate * counts["in"] or not counts["ok"]:
        message = f"{faults.num_errors} of {counts['in']} photos cannot be embedded"
        raise JobFailedError(f"{message} ({faults.errors_by_reason()}), {log_path}", counts)


def _log_not_taken(faults: FaultLog) -> None:
    for reason, kinds in faults.not_taken().items():
        log.info("%s: %s", reason, ", ".join(f"{count} {kind}".strip() for kind, count in kinds.items()))


def _delete_stale(table: TableWriter, changes: TableChanges, counts: dict[str, int]) -> None:
    """Raises JobFailedError if another number of rows is left than expected."""
    for stale in changes.stale.partitions():
        table.delete(sorted(stale["row_id"].tolist()))
    num_rows, expected = table.dataset.count_rows(), counts["embedded"] + changes.num_retained
    if num_rows != expected:
        raise JobFailedError(f"the table has {num_rows} rows instead of {expected}; not published", counts)
