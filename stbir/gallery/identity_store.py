"""Identities of the files that the rows of a gallery were made of, beside its table, as in git's index.

An entry states that a file with this identity gives a row with this fingerprint. That stays true whatever
happens to the table, so a lost or an old entry costs the reading of a photo and nothing else.
"""

import io
from collections.abc import Iterator, Sequence

import numpy as np

from stbir.gallery.fingerprint import HASH_TYPE, Hashes
from stbir.gallery.partitioned_records import PartitionedRecords, Records, partitioned
from stbir.storage.folder import Folder

ENTRY = np.dtype([("fingerprint", HASH_TYPE), ("identity", HASH_TYPE)])
_FOLDER, _SUFFIX = "identities", ".npy"
_MAX_FILES = 16
_FILE_ENTRIES = 2**18  # of a compacted file
_READ_ENTRIES = 2**16  # in memory at once


class IdentityStore:
    """Arrays (N, 2) of fingerprint and identity, one file for each `append`. 48 bytes an entry."""

    def __init__(self, gallery: Folder, writer: str = "") -> None:
        """`writer`: distinguishes the files of writers at the same time; part of their names."""
        self._folder, self._writer = gallery.child(_FOLDER), writer
        self._names = [name for name in self._folder.list_entries() if name.endswith(_SUFFIX)]

    def read(self) -> Iterator[Records]:
        """All entries, the latest last."""
        for name in self._names:
            with self._folder.open(name) as file:
                np.lib.format.read_magic(file)
                np.lib.format.read_array_header_1_0(file)
                while data := file.read(_READ_ENTRIES * ENTRY.itemsize):
                    yield np.frombuffer(data, ENTRY)

    def append(self, entries: Sequence[tuple[bytes, bytes]] | Records) -> None:
        """Write entries, if there are any."""
        if not len(entries):
            return
        buffer = io.BytesIO()
        np.save(buffer, np.array(entries, ENTRY).view(HASH_TYPE).reshape(-1, 2))
        number = int(self._names[-1].partition(".")[0].partition("-")[0]) + 1 if self._names else 0
        name = f"{number:08d}{self._writer and f'-{self._writer}'}{_SUFFIX}"
        self._folder.write(name, buffer.getvalue())
        self._names.append(name)

    def compact(self, fingerprints: PartitionedRecords) -> None:
        """Once there are many small files, keep the latest entry of each of these fingerprints, in few.
        `fingerprints`: records with this field, by its partition."""
        if len(self._names) <= _MAX_FILES + len(fingerprints) // _FILE_ENTRIES:
            return
        old, entries = list(self._names), partitioned(ENTRY, self.read(), key="fingerprint")
        latest: list[Records] = []
        for known, partition in zip(fingerprints.partitions(), entries.partitions(), strict=True):
            latest.append(_latest(partition, known["fingerprint"]))
            if sum(map(len, latest)) >= _FILE_ENTRIES:
                self.append(np.concatenate(latest))
                latest = []
        self.append(np.concatenate([np.empty(0, ENTRY), *latest]))
        for name in old:
            self._folder.remove(name)
        self._names = self._names[len(old) :]


def _latest(entries: Records, fingerprints: Hashes) -> Records:
    """The last entry of each of the fingerprints."""
    entries = entries[::-1]
    _, latest = np.unique(entries["fingerprint"], return_index=True)
    entries = entries[latest]
    return entries[np.isin(entries["fingerprint"], fingerprints)]
