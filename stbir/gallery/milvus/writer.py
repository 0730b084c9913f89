"""Writes versions of a gallery's table as Milvus collections: new ones, and copies of a version."""

from collections.abc import Iterable, Sequence

import pyarrow as pa

from stbir.gallery.metadata import Metadata, read_metadata, write_metadata
from stbir.gallery.milvus.columns import KEY, definitions, to_entities
from stbir.gallery.milvus.table import BATCH_ROWS, MilvusTable, State, collection_name, encode_schema
from stbir.gallery.table import VECTOR
from stbir.storage.folder import Folder


class MilvusWriter:
    """As in `stbir.gallery.store.TableWriter`. The rows of a version with a tag are copied before the first
    change: its readers and its measured recall are those of the collection that was published."""

    def __init__(self, folder: Folder, table: MilvusTable, copy_as: int | None) -> None:
        """`copy_as`: the number of the copy; None if the version has no tag."""
        self.dataset, self._folder, self._copy_as = table, folder, copy_as
        self._next = table.count_rows()

    def append(self, rows: pa.Table) -> None:
        """As in TableWriter."""
        if len(rows):
            self._copy()
            insert_rows(self.dataset, rows, self._next)
            self._next += len(rows)

    def commit(self) -> None:
        """As in TableWriter."""
        if self._next != self.dataset.state.rows:
            self.dataset.state.rows, self.dataset.state.appended = self._next, True
            self.dataset.save()

    def delete(self, row_ids: Sequence[int]) -> None:
        """As in TableWriter. The last rows take the places of the deleted ones, so that there are no gaps.

        A killed deletion leaves rows twice, and the next run of the job deletes one of each.
        """
        if not len(row_ids):
            return
        self._copy()
        table, deleted = self.dataset, set(map(int, row_ids))
        num_left = table.count_rows() - len(deleted)
        gaps = sorted(row for row in deleted if row < num_left)
        moved = [row for row in range(num_left, table.count_rows()) if row not in deleted]
        for first in range(0, len(gaps), BATCH_ROWS):
            places = dict(
                zip(moved[first : first + BATCH_ROWS], gaps[first : first + BATCH_ROWS], strict=True)
            )
            keys = ", ".join(map(str, places))
            entities = table.query(f"{KEY} in [{keys}]", list(table.columns), is_strong=True)
            table.server.call(
                "upsert", table.collection, [{**each, KEY: places[each[KEY]]} for each in entities]
            )
        table.state.rows = self._next = num_left
        table.save()
        delete_uncommitted(table)

    def _copy(self) -> None:
        if self._copy_as is not None:
            self.dataset, self._copy_as = copy_version(self._folder, self.dataset, self._copy_as), None


def create_version(folder: Folder, version: int, schema: pa.Schema) -> MilvusTable:
    """A new version without rows. It exists once its state is saved. Replaces what a killed job has left."""
    table = MilvusTable(folder, version, State(encode_schema(schema)))
    collection = collection_name(folder, version)
    if table.server.has_collection(collection):
        table.server.call("drop_collection", collection)
    table.server.create_collection(collection, definitions(schema))
    table.server.create_index(collection, VECTOR, "FLAT", "IP")
    table.server.call("load_collection", collection)
    return table


def copy_version(folder: Folder, source: MilvusTable, version: int) -> MilvusTable:
    """A new version with the rows of a published one, at the same positions, and without its index."""
    copy = create_version(folder, version, source.schema)
    for first in range(0, source.count_rows(), BATCH_ROWS):
        last = min(first + BATCH_ROWS, source.count_rows())
        entities = source.query(f"{KEY} >= {first} and {KEY} < {last}", list(source.columns), is_strong=True)
        copy.server.call("insert", copy.collection, [dict(each) for each in entities])
    copy.state.rows = source.count_rows()
    write_metadata(copy, Metadata(read_metadata(source).checkpoint))  # also saves the state
    return copy


def write_version(folder: Folder, version: int, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """A new version with these rows. An error of `batches` leaves none."""
    table, num_rows = create_version(folder, version, schema), 0
    try:
        for batch in batches:
            insert_rows(table, pa.table(batch), num_rows)
            num_rows += len(batch)
    except BaseException:
        table.server.call("drop_collection", table.collection)
        raise
    table.state.rows, table.state.appended = num_rows, True
    table.save()


def insert_rows(table: MilvusTable, rows: pa.Table, first: int) -> None:
    """Insert rows with positions from `first` on, which are not committed."""
    for start in range(0, len(rows), BATCH_ROWS):
        part = rows.slice(start, BATCH_ROWS)
        table.server.call("insert", table.collection, to_entities(part, first + start))


def delete_uncommitted(table: MilvusTable) -> None:
    """Delete rows that a killed job inserted without a commit."""
    table.server.call("delete", table.collection, filter=f"{KEY} >= {table.state.rows}")
