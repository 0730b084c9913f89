"""The store of a gallery in a Lance table of its folder; the table's versions are those of the gallery."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import lance
import pyarrow as pa

from stbir.errors import InputError
from stbir.gallery.exact_search import ExactSearch
from stbir.gallery.index import (
    BuiltIndex,
    IndexBuilder,
    IndexPlan,
    build_scalar_indexes,
    check_build_memory,
    count_unindexed_rows,
    plan_index,
    vector_index_name,
)
from stbir.gallery.lance_index import LanceIndex, Tables
from stbir.gallery.lance_writer import LanceWriter
from stbir.gallery.local_cache import CacheConfig, VersionCache
from stbir.gallery.metadata import Metadata, is_compatible, read_metadata, write_metadata
from stbir.gallery.rows import Rows, load_vectors
from stbir.gallery.search import IndexSearch, OpenVersion
from stbir.gallery.table import PUBLISHED, TABLE, dimension, table_uri
from stbir.storage.errors import storage_error
from stbir.storage.folder import Folder
from stbir.storage.manifest import PRODUCERS

_ROW_OPERATIONS = (lance.LanceOperation.Append, lance.LanceOperation.Overwrite)
_REBUILD_RATIO = 2  # `compact` drops an index if its size calls for more than this times as many partitions


class LanceStore:
    """As in `stbir.gallery.store.VectorStore`."""

    allows_concurrent_writers = True

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def open(self, version: str | int | None = None) -> lance.LanceDataset:
        """As in VectorStore."""
        try:
            return lance.dataset(table_uri(self._folder), version=version)
        except (ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{self._folder.uri}/{TABLE}: version {version!r} cannot be opened ({reason});"
                f" make it with {PRODUCERS['gallery']}"
            ) from error

    def latest(self) -> lance.LanceDataset | None:
        """As in VectorStore."""
        try:
            return lance.dataset(table_uri(self._folder))
        except ValueError:
            return None

    def tags(self) -> dict[str, int]:
        """As in VectorStore."""
        return {tag: int(entry["version"]) for tag, entry in self.open().tags.list().items()}

    def set_tag(self, tag: str, version: int) -> None:
        """As in VectorStore."""
        dataset = self.open(version)
        if tag in dataset.tags.list():
            dataset.tags.update(tag, version)
        else:
            dataset.tags.create(tag, version)

    def open_writer(self, schema: pa.Schema, checkpoint_digest: str) -> LanceWriter:
        """As in VectorStore. Another schema or checkpoint gives an empty table, in a new version."""
        latest = self.latest()
        if latest is None or not is_compatible(latest, schema, checkpoint_digest):
            uri = table_uri(self._folder)
            latest = lance.write_dataset(schema.empty_table(), uri, schema=schema, mode="overwrite")
            write_metadata(latest, Metadata(checkpoint_digest))
        return LanceWriter(self._folder, latest)

    def reopen_published(self) -> LanceWriter:
        """As in VectorStore."""
        self.open(PUBLISHED).restore()
        return LanceWriter(self._folder, self.open())

    def has_unpublished_rows(self) -> bool:
        """As in VectorStore. Indexes, compactions and deletions can be repeated and do not count."""
        latest = self.open()
        unpublished = range(max(self.tags().values(), default=0) + 1, latest.version + 1)
        available = {each["version"] for each in latest.version_refs()}
        # The operation of a pruned version is unknown.
        return any(version not in available or _writes_rows(latest, version) for version in unpublished)

    def write(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
        """As in VectorStore. Lance replaces an exception of `batches` by an OSError."""
        reader, uri = pa.RecordBatchReader.from_batches(schema, batches), table_uri(self._folder)
        try:
            return int(lance.write_dataset(reader, uri, mode="overwrite").version)
        except OSError as error:
            raise storage_error(uri, error) from error

    def build_indexes(
        self,
        table: lance.LanceDataset,
        plan: IndexPlan | None,
        columns: tuple[str, ...],
        builder: IndexBuilder,
    ) -> BuiltIndex:
        """As in VectorStore. An existing index stays, and takes in the rows that it does not cover."""
        if plan is None:
            return BuiltIndex(None)
        existing = read_metadata(table).plan if vector_index_name(table) else None
        if existing is None:
            _build(table, plan, builder)
        build_scalar_indexes(table, columns)
        if count_unindexed_rows(table):
            table.optimize.optimize_indices()
        return BuiltIndex(existing or plan, existing is not None)

    def rebuild_index(self, table: lance.LanceDataset, plan: IndexPlan, builder: IndexBuilder) -> IndexPlan:
        """As in VectorStore."""
        table.drop_index(vector_index_name(table))
        _build(table, plan, builder)
        return plan

    def open_search(
        self, table: lance.LanceDataset, plan: IndexPlan | None, cache: CacheConfig | None
    ) -> OpenVersion:
        """As in VectorStore. Without a plan, all vectors are in memory."""
        version_cache = VersionCache(table, cache)
        rows = Rows(table, version_cache.open_captions())
        if plan is None:
            photo_ND = load_vectors(table)
            return OpenVersion(rows, photo_ND, ExactSearch(table, rows, photo_ND), 0, version_cache)
        vectors = version_cache.open_vectors()
        searcher = self._open_index(table, plan, rows, vectors, version_cache)
        return OpenVersion(rows, vectors, searcher, count_unindexed_rows(table), version_cache)

    def _open_index(
        self, table: lance.LanceDataset, plan: IndexPlan, rows: Rows, vectors: Any, cache: VersionCache
    ) -> IndexSearch:
        indexed = frozenset(name for index in table.describe_indices() for name in index.field_names)
        tables = Tables(table, cache.open_index(self._folder.child(TABLE)), indexed)
        # One byte a dimension; the other kinds are for galleries that are too large for that, or on request.
        partitions = cache.open_partitions(rows, vectors, plan) if plan.kind == "IVF_SQ" else None
        return IndexSearch(tables, rows, vectors, partitions or LanceIndex(tables, rows, plan))

    def compact(self, rebuild: bool) -> lance.LanceDataset:
        """As in VectorStore: all rows are in its indexes. Without a vector index if `rebuild`, or if the
        gallery has outgrown it."""
        dataset = self.open(PUBLISHED)
        if dataset.version != dataset.latest_version:
            dataset.restore()
        dataset.optimize.compact_files(materialize_deletions_threshold=0.0)
        index = vector_index_name(dataset)
        if index and (rebuild or _has_outgrown_index(dataset)):
            dataset.drop_index(index)
        if dataset.describe_indices():
            dataset.optimize.optimize_indices()
        return self.open()

    def delete_untagged(self, after: int, before: int) -> None:
        """As in VectorStore."""
        dataset = self.open()
        between = [each["version"] for each in dataset.versions() if after < each["version"] < before]
        if between:
            dataset.cleanup_old_versions(versions=between, error_if_tagged_old_versions=False)

    def expired(self, age: timedelta) -> set[int]:
        """As in VectorStore."""
        listed = self.open().versions()
        now = max(each["timestamp"] for each in listed)
        return {each["version"] for each in listed if now - each["timestamp"] >= age}

    def delete_releases(self, releases: Sequence[int], older_than: timedelta) -> dict[str, int]:
        """As in VectorStore, and all files that only these versions use."""
        dataset = self.open()
        for tag, version in self.tags().items():
            if version in releases:
                dataset.tags.delete(tag)
        removed = dataset.cleanup_old_versions(older_than=older_than, error_if_tagged_old_versions=False)
        return {"versions_removed": int(removed.old_versions), "bytes_removed": int(removed.bytes_removed)}


def _build(table: lance.LanceDataset, plan: IndexPlan, builder: IndexBuilder) -> None:
    check_build_memory(plan, table.count_rows(), dimension(table.schema))
    builder(table, plan)


def _has_outgrown_index(dataset: lance.LanceDataset) -> bool:
    current = read_metadata(dataset).plan
    best = plan_index(dataset.count_rows(), threshold=0, kind=current.kind) if current else None
    return bool(current and best and best.partitions > _REBUILD_RATIO * current.partitions)


def _writes_rows(dataset: lance.LanceDataset, version: int) -> bool:
    try:
        transaction = dataset.read_transaction(version)
    except TypeError:  # Lance 14 cannot read the transaction of a compaction that remaps an index
        return False
    return transaction is None or isinstance(transaction.operation, _ROW_OPERATIONS)
