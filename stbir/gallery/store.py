"""The port to the store of a gallery's vectors, and the stores that implement it.

A gallery is an artifact folder with a manifest and a writer lock. Its rows are in a store: a Lance table in
the same folder, or collections of a Milvus server.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Protocol

import pyarrow as pa

from stbir.gallery.index import BuiltIndex, IndexBuilder, IndexPlan
from stbir.gallery.lance_store import LanceStore
from stbir.gallery.local_cache import CacheConfig
from stbir.gallery.milvus.store import MilvusStore
from stbir.gallery.search import OpenVersion
from stbir.gallery.table import Table
from stbir.storage.folder import Folder
from stbir.storage.milvus_server import SCHEME


class TableWriter(Protocol):
    """Appends to and deletes from an unpublished version. What is committed survives a killed job."""

    @property
    def dataset(self) -> Table:
        """The version as of the last commit."""

    def append(self, rows: pa.Table) -> None:
        """Write rows, which are not part of the version before `commit`."""

    def commit(self) -> None:
        """Make the appended rows part of the version."""

    def delete(self, row_ids: Sequence[int]) -> None:
        """Delete committed rows by their ROW_ID."""


class VectorStore(Protocol):
    """All versions of one gallery. Methods raise InputError if the store cannot be reached."""

    @property
    def allows_concurrent_writers(self) -> bool:
        """Whether several writers may append rows to one version at the same time."""

    def open(self, version: str | int | None = None) -> Any:
        """The version with this number or tag (None: the latest). Raises InputError if it is missing."""

    def latest(self) -> Any | None:
        """The latest version, published or not; None if there is none."""

    def tags(self) -> dict[str, int]:
        """The version of each tag."""

    def set_tag(self, tag: str, version: int) -> None:
        """Create a tag, or move it to this version, in one step for its readers."""

    def open_writer(self, schema: pa.Schema, checkpoint_digest: str) -> TableWriter:
        """A writer on the rows of the latest version; on none if it has another schema or checkpoint."""

    def reopen_published(self) -> TableWriter:
        """A writer on the rows of the published version. Discards later versions."""

    def has_unpublished_rows(self) -> bool:
        """Whether a job has written rows that no published version contains."""

    def write(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
        """Write a new version with these rows; returns its number. An error of `batches` leaves none."""

    def build_indexes(
        self, table: Any, plan: IndexPlan | None, columns: tuple[str, ...], builder: IndexBuilder
    ) -> BuiltIndex:
        """Build the missing indexes: on the vectors, on ids and categories, and on `columns`."""

    def rebuild_index(self, table: Any, plan: IndexPlan, builder: IndexBuilder) -> IndexPlan:
        """Replace the index on the vectors; returns the plan of the new one."""

    def open_search(self, table: Any, plan: IndexPlan | None, cache: CacheConfig | None) -> OpenVersion:
        """Open a version for search."""

    def compact(self, rebuild: bool) -> Any:
        """A new, unpublished version of the published one without traces of deletions. See `versions`."""

    def delete_untagged(self, after: int, before: int) -> None:
        """Delete the versions between these two, which have no tags."""

    def expired(self, age: timedelta) -> set[int]:
        """The versions that were written at least this long before the latest."""

    def delete_releases(self, releases: Sequence[int], older_than: timedelta) -> dict[str, int]:
        """Delete versions with all their tags, and untagged ones of this age; returns what was removed."""


def open_store(folder: Folder) -> VectorStore:
    """The store of a gallery: by the scheme of its URI."""
    return MilvusStore(folder) if folder.uri.startswith(f"{SCHEME}://") else LanceStore(folder)
