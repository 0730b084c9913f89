"""Reading shards: an index of photos that reads no image column, and row groups on demand."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stbir.data.schema import Row
from stbir.errors import InputError
from stbir.storage.folder import Folder
from stbir.storage.manifest import Manifest, read_manifest

INDEX_COLUMNS = ["photo_id", "category", "class", "split", "text", "text_source", "sketch_count"]


@dataclass(frozen=True)
class Shards:
    """Shards with their manifest. `manifest.details["files"]` lists the Parquet files."""

    folder: Folder
    manifest: Manifest

    @property
    def files(self) -> list[str]:
        """Names of the Parquet files, relative to the folder, in order."""
        return list(self.manifest.detail("files"))

    @cached_property
    def index(self) -> pa.Table:
        """One row per photo: INDEX_COLUMNS, `file` and `group`, without images."""
        return pa.concat_tables([self.read_file_index(name) for name in self.files])

    def read_file_index(self, name: str) -> pa.Table:
        """The index rows of one file."""
        with self._parquet(name) as parquet:
            groups = [self._index_group(parquet, name, g) for g in range(parquet.num_row_groups)]
        return pa.concat_tables(groups)

    def _index_group(self, parquet: pq.ParquetFile, name: str, group: int) -> pa.Table:
        table = parquet.read_row_group(group, columns=INDEX_COLUMNS)
        num_rows = table.num_rows
        return table.append_column("file", pa.array([name] * num_rows)).append_column(
            "group", pa.array([group] * num_rows, pa.int32())
        )

    def select_split(self, split: str | None) -> pa.Table:
        """The index rows of one split, or of all with None. Raises InputError if there are none."""
        table = self.index
        if split is not None:
            table = table.filter(pc.equal(table["split"], split))
        if table.num_rows == 0:
            available = ", ".join(sorted(set(self.index["split"].to_pylist()))) or "no photos"
            raise InputError(f"{self.folder.uri}: split {split!r} is empty; available: {available}")
        return table

    def iter_rows(self, split: str | None) -> Iterator[Row]:
        """The complete rows of a split in order, with one row group in memory at a time."""
        groups = self.select_split(split).group_by(["file", "group"], use_threads=False).aggregate([])
        for group in groups.to_pylist():
            for row in self.read_group(group["file"], group["group"]).to_pylist():
                if split is None or row["split"] == split:
                    yield row

    def read_group(self, file: str, group: int, columns: list[str] | None = None) -> pa.Table:
        """One row group with its images, or only `columns` of it."""
        with self._parquet(file) as parquet:
            return parquet.read_row_group(group, columns=columns)

    @contextmanager
    def _parquet(self, name: str) -> Iterator[pq.ParquetFile]:
        with self.folder.open(name) as file:
            try:
                yield pq.ParquetFile(file)
            except (pa.ArrowException, OSError) as error:
                # pyarrow reports damaged content as OSError too, but without an errno.
                if getattr(error, "errno", None) is not None or isinstance(error, TimeoutError):
                    raise
                reason = " ".join(str(error).split())[:200]
                path = f"{self.folder.uri}/{name}"
                raise InputError(f"{path}: damaged ({reason}); run prepare_shards.py again") from error


def open_shards(uri: str) -> Shards:
    """Open shards. Raises InputError if there are none."""
    folder = Folder(uri)
    return Shards(folder, read_manifest(folder, "shards"))
