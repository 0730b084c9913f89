"""Writes a gallery's table in unpublished versions, each of which appends rows. The table is a job's only
state: a killed job resumes from the latest version."""

from collections.abc import Callable, Sequence

import lance
import pyarrow as pa
from lance.fragment import FragmentMetadata, write_fragments

from stbir.errors import InputError
from stbir.gallery.gallery import (
    PUBLISHED,
    Metadata,
    names_table,
    open_table,
    read_metadata,
    table_uri,
    write_metadata,
)
from stbir.storage.errors import storage_errors
from stbir.storage.folder import Folder

_DELETE_BATCH = 20_000
_ROW_OPERATIONS = (lance.LanceOperation.Append, lance.LanceOperation.Overwrite)


class TableWriter:
    """Appends to the latest version of a gallery's table."""

    def __init__(self, folder: Folder, dataset: lance.LanceDataset) -> None:
        self._folder, self.dataset = folder, dataset
        self._fragments: list[FragmentMetadata] = []

    def append(self, rows: pa.Table) -> None:
        """Write rows as a fragment. It is not part of the table before `commit`."""
        uri = table_uri(self._folder)
        with storage_errors(uri):
            self._fragments += write_fragments(rows, uri, schema=rows.schema, mode="append")

    def commit(self) -> None:
        """Commit the appended fragments as a new version."""
        if self._fragments:
            uri, append = table_uri(self._folder), lance.LanceOperation.Append(self._fragments)
            with storage_errors(uri):
                self.dataset = lance.LanceDataset.commit(uri, append, read_version=self.dataset.version)
            self._fragments = []

    def delete(self, row_ids: Sequence[int]) -> None:
        """Delete rows by Lance's row ids, in new versions."""
        with storage_errors(table_uri(self._folder)):
            for start in range(0, len(row_ids), _DELETE_BATCH):
                batch = ", ".join(map(str, row_ids[start : start + _DELETE_BATCH]))
                self.dataset.delete(f"_rowid IN ({batch})")


@names_table
def open_writer(folder: Folder, schema: pa.Schema, checkpoint_digest: str) -> TableWriter:
    """Open the latest version, published or not. A missing or incompatible table is replaced by an empty
    one, in a new version; the published version stays."""
    latest = latest_version(folder)
    if latest is None or not is_compatible(latest, schema, checkpoint_digest):
        latest = lance.write_dataset(schema.empty_table(), table_uri(folder), schema=schema, mode="overwrite")
        write_metadata(latest, Metadata(checkpoint_digest))
    return TableWriter(folder, latest)


def latest_version(folder: Folder) -> lance.LanceDataset | None:
    """The latest version of the table; None without a table."""
    try:
        return lance.dataset(table_uri(folder))
    except ValueError:
        return None


def published_version(folder: Folder) -> lance.LanceDataset | None:
    """The published version of the table; None if nothing is published."""
    latest = latest_version(folder)
    if latest is None or PUBLISHED not in latest.tags.list():
        return None
    return open_table(folder, PUBLISHED)


@names_table
def delete_photos(
    folder: Folder, photo_ids: Sequence[str], check: Callable[[int, int], None] = lambda *_: None
) -> lance.LanceDataset:
    """Delete photos of the published version, in a new version. `check` receives the numbers of deleted and
    of all photos before anything is written. Raises InputError for unknown ids, if nothing is published, and
    as `check_all_rows_published`."""
    published = published_version(folder)
    if published is None:
        raise InputError(f"{folder.uri}: no gallery is published here")
    check_all_rows_published(folder)
    rows = published.to_table(columns=["photo_id"], with_row_id=True)
    row_ids = dict(zip(rows["photo_id"].to_pylist(), rows["_rowid"].to_pylist(), strict=True))
    unknown = [photo_id for photo_id in photo_ids if photo_id not in row_ids]
    if unknown:
        raise InputError(f"--delete: {folder.uri} has no photo {', '.join(map(repr, unknown[:10]))}")
    deleted = sorted({row_ids[photo_id] for photo_id in photo_ids})
    check(len(deleted), len(row_ids))
    published.restore()
    TableWriter(folder, open_table(folder)).delete(deleted)
    return open_table(folder)


def check_all_rows_published(folder: Folder) -> None:
    """Raises InputError if a job has written rows that no published version contains: to start from that
    version would discard them. Indexes, compactions and deletions can be repeated and do not count."""
    latest = open_table(folder)
    unpublished = range(max(_tagged_versions(latest), default=0) + 1, latest.version + 1)
    available = {each["version"] for each in latest.version_refs()}
    # The operation of a pruned version is unknown.
    if any(version not in available or _writes_rows(latest, version) for version in unpublished):
        raise InputError(
            f"{folder.uri}: version {latest.version} has rows that are not published; let that job finish:"
            " run ray_jobs/embed_gallery.py, or the import, again"
        )


def _writes_rows(dataset: lance.LanceDataset, version: int) -> bool:
    try:
        transaction = dataset.read_transaction(version)
    except TypeError:  # Lance 14 cannot read the transaction of a compaction that remaps an index
        return False
    return transaction is None or isinstance(transaction.operation, _ROW_OPERATIONS)


def delete_intermediate_versions(folder: Folder, published: int) -> None:
    """Delete the untagged versions between a published version and the tagged one before it. No reader has
    seen them."""
    dataset, stop = open_table(folder), published
    start = max((version for version in _tagged_versions(dataset) if version < stop), default=0)
    between = [each["version"] for each in dataset.versions() if start < each["version"] < stop]
    if between:
        dataset.cleanup_old_versions(versions=between, error_if_tagged_old_versions=False)


def _tagged_versions(dataset: lance.LanceDataset) -> list[int]:
    return [tag["version"] for tag in dataset.tags.list().values()]


def is_compatible(dataset: lance.LanceDataset, schema: pa.Schema, checkpoint_digest: str) -> bool:
    """Whether a version has this schema and vectors of this checkpoint."""
    if not dataset.schema.equals(schema, check_metadata=False):
        return False
    try:
        return read_metadata(dataset).checkpoint == checkpoint_digest
    except InputError:
        return False
