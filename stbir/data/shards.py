"""SHARDS as a reader sees them: an index of photos that costs no picture, and row groups on demand."""

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

INDEX_COLUMNS = ["photo_id", "category", "class", "split", "text", "text_source"]


@dataclass(frozen=True)
class Shards:
    """Shards whose manifest has been read. `manifest.details["files"]` lists their Parquet files."""

    folder: Folder
    manifest: Manifest

    @property
    def files(self) -> list[str]:
        """Names of the Parquet files, relative to the folder, in order."""
        return list(self.manifest.detail("files"))

    @cached_property
    def index(self) -> pa.Table:
        """One row a photo without its pictures: INDEX_COLUMNS, `sketch_count`, `file`, `group`."""
        return pa.concat_tables([self.index_of(name) for name in self.files])

    def index_of(self, name: str) -> pa.Table:
        """The index rows of one of the files."""
        with self._parquet(name) as parquet:
            groups = [self._index_group(parquet, name, g) for g in range(parquet.num_row_groups)]
        return pa.concat_tables(groups)

    def _index_group(self, parquet: pq.ParquetFile, name: str, group: int) -> pa.Table:
        table = parquet.read_row_group(group, columns=[*INDEX_COLUMNS, "sketch_count"])
        rows = table.num_rows
        return table.append_column("file", pa.array([name] * rows)).append_column(
            "group", pa.array([group] * rows, pa.int32())
        )

    def split(self, split: str | None) -> pa.Table:
        """The index rows of one split (None: of all). Raises InputError where it is empty."""
        table = self.index
        if split is not None:
            table = table.filter(pc.equal(table["split"], split))
        if table.num_rows == 0:
            there = ", ".join(sorted(set(self.index["split"].to_pylist()))) or "no photos at all"
            raise InputError(f"{self.folder.uri}: split {split!r} is empty; there is {there}")
        return table

    def rows(self, split: str | None) -> Iterator[Row]:
        """The whole rows of a split, in order, one row group in memory at a time."""
        wanted = self.split(split).group_by(["file", "group"], use_threads=False).aggregate([])
        for place in wanted.to_pylist():
            for row in self.read_group(place["file"], place["group"]).to_pylist():
                if split is None or row["split"] == split:
                    yield row

    def read_group(self, file: str, group: int, columns: list[str] | None = None) -> pa.Table:
        """One row group with its pictures."""
        with self._parquet(file) as parquet:
            return parquet.read_row_group(group, columns=columns)

    @contextmanager
    def _parquet(self, name: str) -> Iterator[pq.ParquetFile]:
        with self.folder.open(name) as file:
            try:
                yield pq.ParquetFile(file)
            except (pa.ArrowException, OSError) as error:
                # pyarrow's own errors about content are OSErrors too, but no system call failed.
                if getattr(error, "errno", None) is not None or isinstance(error, TimeoutError):
                    raise
                reason = " ".join(str(error).split())[:200]
                where = f"{self.folder.uri}/{name}"
                raise InputError(f"{where}: damaged ({reason}); run prepare_shards.py again") from error


def open_shards(uri: str) -> Shards:
    """Open shards. Raises InputError where there are none."""
    folder = Folder(uri)
    return Shards(folder, read_manifest(folder, "shards"))
