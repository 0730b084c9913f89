"""The local disk cache of a gallery version: vectors, captions, and the indexes of a remote table."""

import hashlib
import logging
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import lance
import numpy as np

from stbir.gallery import caption_store
from stbir.gallery.arrays import Features
from stbir.gallery.caption_store import CaptionStore, TooLargeError
from stbir.gallery.rows import VECTOR, TableVectors, VectorStore, extract_vectors, load_vectors
from stbir.storage.folder import Folder

log = logging.getLogger(__name__)
_VECTORS, _CAPTIONS = "vectors.f32", "texts"
_MAX_IN_MEMORY_BYTES = 2**28  # for the vectors, and for the captions, of a version


@dataclass(frozen=True)
class CacheConfig:
    """A local folder, and the byte limit for the vectors and for the captions of a version."""

    path: Path
    max_bytes: int = 2**40


class VersionCache:
    """The cache of one table version, which is immutable. Small vectors and captions are loaded into memory,
    others memory-mapped. Above the byte limit, and if `config` is None, each access reads the table."""

    def __init__(self, dataset: lance.LanceDataset, config: CacheConfig | None) -> None:
        self._dataset, self._config = dataset, config
        self._path = _version_path(dataset, config.path) if config else Path()

    def open_vectors(self) -> VectorStore:
        """The vectors of the version."""
        shape = (self._dataset.count_rows(), self._dataset.schema.field(VECTOR).type.list_size)
        num_bytes = 4 * shape[0] * shape[1]
        if num_bytes <= _MAX_IN_MEMORY_BYTES:
            return load_vectors(self._dataset)
        if self._config is None or num_bytes > self._config.max_bytes:
            if self._config:
                log.warning("%s: the vectors exceed the byte limit of the cache", self._path)
            return TableVectors(self._dataset)
        file = self._path / _VECTORS
        if not file.exists():
            self._write_vectors(file)
        mapped: Features = np.memmap(file, np.float32, "r", shape=shape)
        return mapped

    def open_captions(self) -> CaptionStore | None:
        """The captions of the version; None without a caption column."""
        if not caption_store.has_captions(self._dataset):
            return None
        try:
            return caption_store.load_captions(self._dataset, _MAX_IN_MEMORY_BYTES)
        except TooLargeError:
            return self._memmap_captions() or caption_store.TableCaptions(self._dataset)

    def open_index(self, table: Folder) -> lance.LanceDataset:
        """The version for index searches. For a remote table: a copy of its manifest, its indexes, and the
        fragments that an index does not cover yet."""
        if self._config is None or table.is_local:
            return self._dataset
        copy = self._path / f"version-{self._dataset.version}.lance"
        if not copy.exists():
            temporary = self._temporary_path()
            for name in _index_files(self._dataset, table):
                _download(table, name, temporary / name)
            _move_folder(temporary, copy)
        return lance.dataset(str(copy), version=self._dataset.version)

    def _memmap_captions(self) -> CaptionStore | None:
        if self._config is None:
            return None
        folder = self._path / _CAPTIONS
        if not folder.exists():
            temporary = self._temporary_path()
            temporary.mkdir(parents=True)
            try:
                caption_store.write_captions(self._dataset, temporary, self._config.max_bytes)
            except TooLargeError:
                log.warning("%s: the captions exceed the byte limit of the cache", self._path)
                shutil.rmtree(temporary)
                return None
            _move_folder(temporary, folder)
        return caption_store.memmap_captions(folder)

    def _temporary_path(self) -> Path:
        return self._path / f"{uuid.uuid4().hex}.part"

    def _write_vectors(self, file: Path) -> None:
        temporary = self._temporary_path()
        self._path.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as out:
            for batch in self._dataset.to_batches(columns=[VECTOR]):
                out.write(extract_vectors(batch).tobytes())
        os.replace(temporary, file)


def _version_path(dataset: lance.LanceDataset, cache: Path) -> Path:
    """The folder of a version. Versions with the same files share it; a rewritten table gets a new one."""
    fragments = dataset.get_fragments()
    files = [file.path for fragment in fragments for file in fragment.data_files()]
    deletions = [str(fragment.deletion_file()) for fragment in fragments]
    key = "\0".join([dataset.uri, *files, *deletions])
    return cache.expanduser() / hashlib.sha256(key.encode()).hexdigest()[:32]


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
