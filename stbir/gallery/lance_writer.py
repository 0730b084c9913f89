"""Writes a Lance table in unpublished versions, each of which appends or deletes rows."""

from collections.abc import Sequence

import lance
import pyarrow as pa
from lance.fragment import FragmentMetadata, write_fragments

from stbir.gallery.table import table_uri
from stbir.storage.errors import storage_errors
from stbir.storage.folder import Folder

_DELETE_BATCH = 20_000


class LanceWriter:
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
