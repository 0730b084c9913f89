"""Unpublished versions, to which jobs write: the only state of a job, which resumes from the latest."""

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from stbir.errors import InputError
from stbir.gallery.store import TableWriter, open_store
from stbir.gallery.table import PUBLISHED, ROW_ID, Table, names_table
from stbir.storage.folder import Folder


@names_table
def open_writer(folder: Folder, schema: pa.Schema, checkpoint_digest: str) -> TableWriter:
    """Open the latest version, published or not. A missing or incompatible one is replaced by an empty one;
    the published version stays."""
    return open_store(folder).open_writer(schema, checkpoint_digest)


def latest_version(folder: Folder) -> Any | None:
    """The latest version; None if nothing was written."""
    return open_store(folder).latest()


def published_version(folder: Folder) -> Any | None:
    """The published version; None if nothing is published."""
    store = open_store(folder)
    return store.open(PUBLISHED) if store.latest() is not None and PUBLISHED in store.tags() else None


@names_table
def delete_photos(
    folder: Folder, photo_ids: Sequence[str], check: Callable[[int, int], None] = lambda *_: None
) -> Table:
    """Delete photos of the published version, in a new version. `check` receives the numbers of deleted and
    of all photos before anything is written. Raises InputError for unknown ids, if nothing is published, and
    as `check_all_rows_published`."""
    published = published_version(folder)
    if published is None:
        raise InputError(f"{folder.uri}: no gallery is published here")
    check_all_rows_published(folder)
    row_ids = _read_row_ids(published)
    unknown = [photo_id for photo_id in photo_ids if photo_id not in row_ids]
    if unknown:
        raise InputError(f"--delete: {folder.uri} has no photo {', '.join(map(repr, unknown[:10]))}")
    deleted = sorted({row_ids[photo_id] for photo_id in photo_ids})
    check(len(deleted), len(row_ids))
    writer = open_store(folder).reopen_published()
    writer.delete(deleted)
    return writer.dataset


def check_all_rows_published(folder: Folder) -> None:
    """Raises InputError if a job has written rows that no published version contains: to start from that
    version would discard them."""
    store = open_store(folder)
    if store.has_unpublished_rows():
        raise InputError(
            f"{folder.uri}: version {store.open().version} has rows that are not published; let that job"
            " finish: run ray_jobs/embed_gallery.py, or the import, again"
        )


def delete_intermediate_versions(folder: Folder, published: int) -> None:
    """Delete the untagged versions between a published version and the tagged one before it. No reader has
    seen them."""
    store = open_store(folder)
    start = max((version for version in store.tags().values() if version < published), default=0)
    store.delete_untagged(start, published)


def _read_row_ids(table: Table) -> dict[str, int]:
    ids: dict[str, int] = {}
    for batch in table.to_batches(columns=["photo_id"], with_row_id=True):
        ids |= zip(batch["photo_id"].to_pylist(), batch[ROW_ID].to_pylist(), strict=True)
    return ids
