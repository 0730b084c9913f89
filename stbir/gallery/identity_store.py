"""Identities of the files that the rows of a gallery were made of, beside its table, as in git's index.

An entry states that a file with this identity gives a row with this fingerprint. That stays true whatever
happens to the table, so a lost or an old entry costs the reading of a photo and nothing else.
"""

import io
from collections.abc import Sequence

import numpy as np

from stbir.gallery.fingerprint import HASH_TYPE, Hashes
from stbir.storage.folder import Folder

_FOLDER, _SUFFIX = "identities", ".npy"
_MAX_FILES = 16


class IdentityStore:
    """Arrays (N, 2) of fingerprint and identity, one file for each `append`. 48 bytes an entry."""

    def __init__(self, gallery: Folder) -> None:
        self._folder = gallery.child(_FOLDER)
        self._names = [name for name in self._folder.list_entries() if name.endswith(_SUFFIX)]

    def read(self) -> Hashes:
        """All entries (N, 2), the latest last."""
        arrays = [np.load(io.BytesIO(self._folder.read(name))) for name in self._names]
        return np.concatenate([np.empty((0, 2), HASH_TYPE), *arrays])

    def append(self, entries: Sequence[tuple[bytes, bytes]] | Hashes) -> None:
        """Write entries, if there are any."""
        if not len(entries):
            return
        buffer = io.BytesIO()
        np.save(buffer, np.array(entries, HASH_TYPE))
        number = int(self._names[-1].removesuffix(_SUFFIX)) + 1 if self._names else 0
        name = f"{number:08d}{_SUFFIX}"
        self._folder.write(name, buffer.getvalue())
        self._names.append(name)

    def compact(self, fingerprints: Hashes) -> None:
        """Once there are many files, keep the latest entry of each of these fingerprints, in one file."""
        if len(self._names) <= _MAX_FILES:
            return
        old, entries_N2 = list(self._names), self.read()[::-1]
        _, latest = np.unique(entries_N2[:, 0], return_index=True)
        entries_N2 = entries_N2[latest]
        self.append(entries_N2[np.isin(entries_N2[:, 0], fingerprints)])
        for name in old:
            self._folder.remove(name)
        self._names = self._names[len(old) :]
