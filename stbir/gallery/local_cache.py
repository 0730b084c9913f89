"""The local disk cache of a gallery version: vectors, captions, and the indexes of a remote table."""

import hashlib
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import lance
import numpy as np

from stbir.gallery import caption_store
from stbir.gallery.arrays import Features
from stbir.gallery.cache_folder import CacheFolder
from stbir.gallery.caption_store import CaptionStore, TooLargeError
from stbir.gallery.index import IndexPlan
from stbir.gallery.partition_scan import PartitionScan, write_partitions
from stbir.gallery.rows import Rows, TableVectors, VectorArray, extract_vectors, load_vectors
from stbir.gallery.table import VECTOR
from stbir.storage.folder import Folder

log = logging.getLogger(__name__)
_VECTORS, _CAPTIONS, _PARTITIONS = "vectors.f32", "texts", "partitions"
_MAX_IN_MEMORY_BYTES = 2**28  # for the vectors, and for the captions, of a version


@dataclass(frozen=True)
class CacheConfig:
    """A local folder, and the byte limit for all that it holds, besides the space that stays free."""

    path: Path
    max_bytes: int = 2**40


class VersionCache:
    """The cache of one table version, which is immutable. Small vectors and captions are loaded into memory,
    others memory-mapped. Above the byte limit, and if `config` is None, each access reads the table.

    What it opens stays on disk as long as this object exists.
    """

    def __init__(self, dataset: lance.LanceDataset, config: CacheConfig | None) -> None:
        self._dataset, self._config = dataset, config
        self._shape = dataset.count_rows(), dataset.schema.field(VECTOR).type.list_size
        self._folder: CacheFolder | None = None
        if config is not None:
            self._folder = CacheFolder(config.path.expanduser(), _folder_name(dataset), config.max_bytes)

    def open_vectors(self) -> VectorArray:
        """The vectors of the version."""
        num_bytes = 4 * self._shape[0] * self._shape[1]
        if num_bytes <= _MAX_IN_MEMORY_BYTES:
            return load_vectors(self._dataset)
        folder = self._acquire(_VECTORS, num_bytes, "vectors")
        if folder is None:
            return TableVectors(self._dataset)
        file = folder.path / _VECTORS
        if not file.exists():
            self._write_vectors(folder, file)
        mapped: Features = np.memmap(file, np.float32, "r", shape=self._shape)
        return mapped

    def open_captions(self) -> CaptionStore | None:
        """The captions of the version; None without a caption column."""
        if not caption_store.has_captions(self._dataset):
            return None
        try:
            return caption_store.load_captions(self._dataset, _MAX_IN_MEMORY_BYTES)
        except TooLargeError:
            return self._memmap_captions() or caption_store.TableCaptions(self._dataset)

    def open_partitions(self, rows: Rows, photo_ND: VectorArray, plan: IndexPlan) -> PartitionScan | None:
        """The vector index as a scan of its partitions; None if it has gaps, or does not fit."""
        [index] = [each for each in self._dataset.describe_indices() if VECTOR in each.field_names]
        name = f"{_PARTITIONS}-{index.segments[0].uuid}"
        folder = self._acquire(name, self._shape[0] * (self._shape[1] + 8), "partitions")
        if folder is None:
            return None
        partitions = folder.path / name
        if not partitions.exists():
            with folder.temporary_path() as part:
                part.mkdir()
                if not write_partitions(self._dataset, rows, photo_ND, part):
                    log.warning("%s: the index does not cover all rows; searches are slower", folder.path)
                    return None
                _move_folder(part, partitions)
        return PartitionScan(partitions, plan)

    def open_index(self, table: Folder) -> lance.LanceDataset:
        """The version for index searches. For a remote table: a copy of its manifest, its indexes, and the
        fragments that an index does not cover yet."""
        if self._config is None or table.is_local:
            return self._dataset
        name, files = f"version-{self._dataset.version}.lance", _index_files(self._dataset, table)
        num_bytes = sum(int(table.fs.size(table.path_of(file))) for file in files)
        folder = self._acquire(name, num_bytes, "indexes")
        if folder is None:
            return self._dataset
        copy = folder.path / name
        if not copy.exists():
            with folder.temporary_path() as part:
                for file in files:
                    _download(table, file, part / file)
                _move_folder(part, copy)
        return lance.dataset(str(copy), version=self._dataset.version)

    def _acquire(self, name: str, num_bytes: int, content: str) -> CacheFolder | None:
        """The folder, which has the file `name`, or has room for it; else None."""
        folder, config = self._folder, self._config
        if folder is None or config is None:
            return None
        if num_bytes <= config.max_bytes:
            folder.acquire()
            if (folder.path / name).exists() or folder.make_room(num_bytes):
                return folder
        log.warning("%s: the %s do not fit into the cache", folder.path, content)
        return None

    def _memmap_captions(self) -> CaptionStore | None:
        folder = self._acquire(_CAPTIONS, 0, "captions")
        if folder is None:
            return None
        captions = folder.path / _CAPTIONS
        if not captions.exists():
            try:
                with folder.temporary_path() as part:
                    part.mkdir()
                    caption_store.write_captions(self._dataset, part, folder.make_room)
                    _move_folder(part, captions)
            except TooLargeError:
                log.warning("%s: the captions do not fit into the cache", folder.path)
                return None
        return caption_store.memmap_captions(captions)

    def _write_vectors(self, folder: CacheFolder, file: Path) -> None:
        with folder.temporary_path() as part:
            with part.open("wb") as out:
                for batch in self._dataset.to_batches(columns=[VECTOR]):
                    out.write(extract_vectors(batch).tobytes())
            os.replace(part, file)


def _folder_name(dataset: lance.LanceDataset) -> str:
    """The name for a version. Versions with the same files share it; a rewritten table gets a new one."""
    fragments = dataset.get_fragments()
    files = [file.path for fragment in fragments for file in fragment.data_files()]
    deletions = [str(fragment.deletion_file()) for fragment in fragments]
    table, version = (_hash(text) for text in (dataset.uri, "\0".join([dataset.uri, *files, *deletions])))
    return f"{table[:16]}-{version[:32]}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _index_files(dataset: lance.LanceDataset, table: Folder) -> list[str]:
    """The names of the table's files that an index search reads."""
    indexes = dataset.describe_indices()
    uuids = {str(segment.uuid) for index in indexes for segment in index.segments}
    # Each index covers its own fragments: a scalar index may be older than the vector index.
    covered = [set().union(*(segment.fragment_ids for segment in index.segments)) for index in indexes]
    fragments = [each for each in dataset.get_fragments() if any(each.fragment_id not in s for s in covered)]
    data = {f"data/{file.path}" for fragment in fragments for file in fragment.data_files()}
    # Lance also names manifests by a descending number, so that a listing starts with the newest.
    manifest = {f"_versions/{name}.manifest" for name in (dataset.version, 2**64 - 1 - dataset.version)}
    return [
        name
        for name in table.list_files("**")
        if name in data | manifest
        or name.startswith("_deletions/")
        or (name.startswith("_indices/") and name.split("/")[1] in uuids)
    ]


def _download(folder: Folder, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.fs.get_file(folder.path_of(name), str(target))


def _move_folder(source: Path, target: Path) -> None:
    """Rename a folder. If another process has created the target meanwhile, keep that one."""
    try:
        os.rename(source, target)
    except OSError:
        shutil.rmtree(source)
        if not target.exists():
            raise
