"""What searching a version reads again and again, on this machine's disk: full vectors, texts, remote
indexes."""

import hashlib
import logging
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import lance
import numpy as np

from stbir.gallery.arrays import Features
from stbir.gallery.caption_store import TextsAt, TextsInTable, TooManyError, texts_mapped, write_texts
from stbir.gallery.rows import VECTOR, Rows, VectorsAt, VectorsInTable, vectors
from stbir.storage.folder import Folder

log = logging.getLogger(__name__)
_VECTORS, _TEXTS = "vectors.f32", "texts"


@dataclass(frozen=True)
class Cache:
    """A folder on this machine that may hold up to `most_bytes` for one version of a gallery."""

    path: Path
    most_bytes: int = 2**40


class Local:
    """The part of the cache that belongs to one version of a table. Versions never change, nor does this."""

    def __init__(self, dataset: lance.LanceDataset, cache: Cache) -> None:
        self._dataset, self._most_bytes = dataset, cache.most_bytes
        # Versions of the same photos have the same files, and a table made again at the same place others.
        files = [file.path for fragment in dataset.get_fragments() for file in fragment.data_files()]
        gone = [str(fragment.deletion_file()) for fragment in dataset.get_fragments()]
        name = "\0".join([dataset.uri, *files, *gone])
        self._path = cache.path.expanduser() / hashlib.sha256(name.encode()).hexdigest()[:32]

    def vectors_at(self, rows: Rows, dim: int) -> VectorsAt:
        """The full vectors, mapped from a file written once; from the table where it would be too large."""
        if 4 * len(rows) * dim > self._most_bytes:
            log.warning("%s: %d vectors are too many for the cache", self._path, len(rows))
            return VectorsInTable(self._dataset)
        file = self._path / _VECTORS
        if not file.exists():
            self._write(file)
        mapped: Features = np.memmap(file, np.float32, "r", shape=(len(rows), dim))
        return mapped

    def texts(self) -> TextsAt:
        """The photos' texts, mapped from files written once; from the table where they would be too large."""
        whole = self._path / _TEXTS
        if not whole.exists():
            part = self._path / f"{uuid.uuid4().hex}.part"
            part.mkdir(parents=True)
            try:
                write_texts(self._dataset, part, self._most_bytes)
            except TooManyError:
                log.warning("%s: the texts are too many for the cache", self._path)
                shutil.rmtree(part)
                return TextsInTable(self._dataset)
            _settle(part, whole)
        return texts_mapped(whole)

    def index(self, folder: Folder) -> lance.LanceDataset:
        """The version as it searches: of a remote gallery a copy of its manifest, its indexes, and the photos
        that one of them does not know yet. What else the table holds stays where it is."""
        if folder.local:
            return self._dataset
        copy = self._path / f"version-{self._dataset.version}.lance"
        if not copy.exists():
            part = self._path / f"{uuid.uuid4().hex}.part"
            for name in _searched(self._dataset, folder):
                _download(folder, name, part / name)
            _settle(part, copy)
        return lance.dataset(str(copy), version=self._dataset.version)

    def _write(self, file: Path) -> None:
        part = file.with_name(f"{uuid.uuid4().hex}.part")
        self._path.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as out:
            for batch in self._dataset.to_batches(columns=[VECTOR]):
                out.write(vectors(batch).tobytes())
        os.replace(part, file)


def _searched(dataset: lance.LanceDataset, table: Folder) -> list[str]:
    """The names of the files of a table that a search through its indexes reads."""
    indexes = dataset.describe_indices()
    parts = {str(segment.uuid) for index in indexes for segment in index.segments}
    # Each index may know others: that of a filter can be older than that of the vectors.
    covers = [set().union(*(segment.fragment_ids for segment in index.segments)) for index in indexes]
    fresh = [each for each in dataset.get_fragments() if any(each.fragment_id not in ids for ids in covers)]
    data = {f"data/{file.path}" for fragment in fresh for file in fragment.data_files()}
    # Lance counts its manifests downward, so that the newest is listed first.
    manifest = {f"_versions/{name}.manifest" for name in (dataset.version, 2**64 - 1 - dataset.version)}
    return [
        name
        for name in table.names("**")
        if name in data | manifest
        or name.startswith("_deletions/")
        or (name.startswith("_indices/") and name.split("/")[1] in parts)
    ]


def _download(folder: Folder, name: str, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    folder.fs.get_file(folder.at(name), str(to))


def _settle(part: Path, whole: Path) -> None:
    """Another replica may have been faster; its copy is as good."""
    try:
        os.rename(part, whole)
    except OSError:
        shutil.rmtree(part)
        if not whole.exists():
            raise
