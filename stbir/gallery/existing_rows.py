"""The rows of a gallery's table before a job, and which of them the job retains."""

from collections.abc import Iterable, Sequence

import lance
import numpy as np
from numpy.typing import NDArray

from stbir.gallery.arrays import Indices
from stbir.gallery.fingerprint import HASH_LENGTH, Fingerprints, fingerprint, short_hash

Hashes = NDArray[np.bytes_]
_HASH_TYPE = f"S{HASH_LENGTH}"


class ExistingRows:
    """Rows by the hash of their photo id, about 60 bytes a row. Rows that are not retained become stale."""

    def __init__(self, id_hashes: Hashes, fingerprints: Hashes, row_ids: NDArray[np.uint64]) -> None:
        order = np.argsort(id_hashes, kind="stable")
        self.id_hashes, self.fingerprints = id_hashes[order], fingerprints[order]
        self._row_ids = row_ids[order]
        self._is_retained = np.zeros(len(id_hashes), bool)

    def lookup_fingerprints(self, photo_ids: Sequence[str]) -> Fingerprints:
        """The fingerprints of the ids that the table contains, in table order."""
        spans = zip(photo_ids, *self._spans(photo_ids), strict=True)
        return {id_: self.fingerprints[start:stop].tolist() for id_, start, stop in spans if start < stop}

    def retain(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """Retain the row of each id and fingerprint; other rows of the same id become stale."""
        for photo_id, row_fingerprint in rows:
            [start], [stop] = self._spans([photo_id])
            self._is_retained[start + self.fingerprints[start:stop].tolist().index(row_fingerprint)] = True

    def retain_newest(self, photo_ids: Iterable[str]) -> None:
        """Retain the last written row of each id that the table contains."""
        for photo_id in photo_ids:
            [start], [stop] = self._spans([photo_id])
            self._is_retained[stop - 1] |= start < stop

    @property
    def num_retained(self) -> int:
        """The number of retained rows."""
        return int(self._is_retained.sum())

    def stale_row_ids(self) -> list[int]:
        """Lance's ids of the rows that are not retained, ascending."""
        return sorted(self._row_ids[~self._is_retained].tolist())

    def _spans(self, photo_ids: Sequence[str]) -> tuple[Indices, Indices]:
        hashes = np.array([short_hash(photo_id) for photo_id in photo_ids], _HASH_TYPE)
        return self.id_hashes.searchsorted(hashes, "left"), self.id_hashes.searchsorted(hashes, "right")


def read_existing_rows(dataset: lance.LanceDataset | None, metadata_columns: Sequence[str]) -> ExistingRows:
    """Read the rows of a table version; None gives no rows."""
    id_hashes: list[bytes] = []
    fingerprints: list[bytes] = []
    row_ids: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
    columns = ["photo_id", "category", "content", *metadata_columns]
    for batch in dataset.to_batches(columns=columns, with_row_id=True) if dataset is not None else ():
        row_ids.append(batch["_rowid"].to_numpy())
        rows = zip(*(batch[name].to_pylist() for name in columns), strict=True)
        for photo_id, category, content, *metadata in rows:
            id_hashes.append(short_hash(photo_id))
            fingerprints.append(fingerprint(photo_id, category, content, metadata))
    return ExistingRows(
        np.array(id_hashes, _HASH_TYPE), np.array(fingerprints, _HASH_TYPE), np.concatenate(row_ids)
    )


def count_changes(before: ExistingRows, after: ExistingRows) -> dict[str, int]:
    """Count `new`, `changed` and `removed` photos between two versions with unique ids."""
    index = np.searchsorted(before.id_hashes, after.id_hashes)
    index[index == len(before.id_hashes)] = 0
    is_common = is_same = np.zeros(len(after.id_hashes), bool)
    if len(before.id_hashes):
        is_common = before.id_hashes[index] == after.id_hashes
        is_same = is_common & (before.fingerprints[index] == after.fingerprints)
    return {
        "new": int((~is_common).sum()),
        "changed": int((is_common & ~is_same).sum()),
        "removed": len(before.id_hashes) - int(is_common.sum()),
    }
