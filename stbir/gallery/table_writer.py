"""A gallery's table as a job writes it: unpublished versions, each with some more rows than the one before.

So the table itself is all that a job killed at any moment leaves, and all that the next one needs.
"""

from collections.abc import Sequence

import lance
import pyarrow as pa
from lance.fragment import FragmentMetadata, write_fragments

from stbir.errors import InputError
from stbir.gallery.gallery import PUBLISHED, Facts, open_table, read_facts, table_uri, write_facts
from stbir.storage.folder import Folder

_REMOVED_AT_ONCE = 20_000
_WRITE_ROWS = (lance.LanceOperation.Append, lance.LanceOperation.Overwrite)


class Growth:
    """The newest version of a gallery's table. `add` writes, `commit` makes it last."""

    def __init__(self, folder: Folder, dataset: lance.LanceDataset) -> None:
        self._folder, self.dataset = folder, dataset
        self._written: list[FragmentMetadata] = []

    def add(self, rows: pa.Table) -> None:
        """Write rows as a fragment behind all others. It does not count before `commit`."""
        self._written += write_fragments(rows, table_uri(self._folder), schema=rows.schema, mode="append")

    def commit(self) -> None:
        """A new version with all that was added."""
        if self._written:
            append = lance.LanceOperation.Append(self._written)
            self.dataset = lance.LanceDataset.commit(
                table_uri(self._folder), append, read_version=self.dataset.version
            )
            self._written = []

    def remove(self, addresses: Sequence[int]) -> None:
        """New versions without the rows of these addresses."""
        for start in range(0, len(addresses), _REMOVED_AT_ONCE):
            some = ", ".join(map(str, addresses[start : start + _REMOVED_AT_ONCE]))
            self.dataset.delete(f"_rowid IN ({some})")


def grow(folder: Folder, schema: pa.Schema, checkpoint_digest: str) -> Growth:
    """What is there already, whether published or not; an empty table where there is none, or where another
    checkpoint made it, or it has other columns. What is published stays so."""
    newest = newest_version(folder)
    if newest is None or not alike(newest, schema, checkpoint_digest):
        newest = lance.write_dataset(schema.empty_table(), table_uri(folder), schema=schema, mode="overwrite")
        write_facts(newest, Facts(checkpoint_digest))
    return Growth(folder, newest)


def newest_version(folder: Folder) -> lance.LanceDataset | None:
    """The table as it was written last; None where there is none."""
    try:
        return lance.dataset(table_uri(folder))
    except ValueError:
        return None


def published_version(folder: Folder) -> lance.LanceDataset | None:
    """The table as readers see it; None where nothing is published."""
    newest = newest_version(folder)
    if newest is None or PUBLISHED not in newest.tags.list():
        return None
    return open_table(folder, PUBLISHED)


def without(folder: Folder, photo_ids: Sequence[str]) -> lance.LanceDataset:
    """A new version: the published one without these photos. Raises InputError for ids that are not there,
    where nothing is published, and as `refuse_unfinished`."""
    published = published_version(folder)
    if published is None:
        raise InputError(f"{folder.uri}: no gallery is published there")
    refuse_unfinished(folder)
    there = published.to_table(columns=["photo_id"], with_row_id=True)
    addresses = dict(zip(there["photo_id"].to_pylist(), there["_rowid"].to_pylist(), strict=True))
    unknown = [photo_id for photo_id in photo_ids if photo_id not in addresses]
    if unknown:
        raise InputError(f"--delete: {folder.uri} has no photo {', '.join(map(repr, unknown[:10]))}")
    published.restore()
    growth = Growth(folder, open_table(folder))
    growth.remove(sorted({addresses[photo_id] for photo_id in photo_ids}))
    return open_table(folder)


def refuse_unfinished(folder: Folder) -> None:
    """Raises InputError where a job has written rows that no published version has: to start from what is
    published would throw them away. Indexes, compaction and deletions that were left so are no loss."""
    newest = open_table(folder)
    since = range(newest_tagged(folder) + 1, newest.version + 1)
    there = {each["version"] for each in newest.version_refs()}
    # Of a step that was cleaned away nobody knows what it did.
    if any(version not in there or _wrote_rows(newest, version) for version in since):
        raise InputError(
            f"{folder.uri}: version {newest.version} was written and not published; let that job finish"
            " first: run ray_jobs/embed_gallery.py, or the import, again"
        )


def _wrote_rows(dataset: lance.LanceDataset, version: int) -> bool:
    try:
        step = dataset.read_transaction(version)
    except TypeError:  # Lance 14 cannot show a compaction that took an index along
        return False
    return step is None or isinstance(step.operation, _WRITE_ROWS)


def forget_unread(folder: Folder, since: int, until: int) -> None:
    """Remove the versions between two: steps on the way to the second, which no reader has seen."""
    dataset = open_table(folder)
    between = [each["version"] for each in dataset.versions() if since < each["version"] < until]
    if between:
        dataset.cleanup_old_versions(versions=between, error_if_tagged_old_versions=False)


def newest_tagged(folder: Folder) -> int:
    """The highest version that has a tag, whatever its name; 0 where none has."""
    return max((tag["version"] for tag in open_table(folder).tags.list().values()), default=0)


def alike(dataset: lance.LanceDataset, schema: pa.Schema, checkpoint_digest: str) -> bool:
    """Whether a version has these columns, and vectors of that checkpoint."""
    if not dataset.schema.equals(schema, check_metadata=False):
        return False
    try:
        return read_facts(dataset).checkpoint == checkpoint_digest
    except InputError:
        return False
