"""The rows of a gallery's table before a job, and which of them the job retains."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from stbir.gallery.arrays import Indices
from stbir.gallery.fingerprint import HASH_TYPE, Hashes, fingerprint, short_hash, short_hashes
from stbir.gallery.table import ROW_ID, Table


class ExistingRows:
    """Rows by the hash of their photo id, about 80 bytes a row. Rows that are not retained become stale."""

    def __init__(self, id_hashes: Hashes, fingerprints: Hashes, row_ids: NDArray[np.uint64]) -> None:
        order = np.argsort(id_hashes, kind="stable")
        self.id_hashes, self.fingerprints = id_hashes[order], fingerprints[order]
        self._row_ids = row_ids[order]
        self._is_retained = np.zeros(len(id_hashes), bool)
        self._identities = np.zeros(len(id_hashes), HASH_TYPE)  # empty where unknown

    def assign_identities(self, pairs_N2: Hashes) -> None:
        """Set the identities of the rows with these fingerprints. The last one of a fingerprint counts."""
        if not len(pairs_N2):
            return
        pairs_N2 = pairs_N2[np.argsort(pairs_N2[:, 0], kind="stable")]
        last = pairs_N2[:, 0].searchsorted(self.fingerprints, "right") - 1
        is_known = pairs_N2[last, 0] == self.fingerprints
        self._identities[is_known] = pairs_N2[last[is_known], 1]

    def lookup_fingerprints(self, photo_ids: Sequence[str]) -> list[list[bytes]]:
        """The fingerprints of the rows of each id, in table order."""
        return [
            self.fingerprints[start:stop].tolist()
            for start, stop in zip(*self._spans(photo_ids), strict=True)
        ]

    def lookup_identities(self, photo_ids: Sequence[str], identities: Sequence[bytes]) -> list[bytes]:
        """The fingerprint of the row with each id and identity; empty if there is none."""
        rows = self._find(photo_ids, self._identities, identities)
        fingerprints = np.zeros(len(rows), HASH_TYPE)
        fingerprints[rows >= 0] = self.fingerprints[rows[rows >= 0]]
        return fingerprints.tolist()

    def retain(self, rows: Sequence[tuple[str, bytes]]) -> None:
        """Retain the row of each id and fingerprint; other rows of the same id become stale."""
        photo_ids, fingerprints = zip(*rows, strict=True) if rows else ((), ())
        found = self._find(photo_ids, self.fingerprints, fingerprints)
        assert (found >= 0).all(), "only rows of the table can be retained"
        self._is_retained[found] = True

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
        """The row ids of the rows that are not retained, ascending."""
        return sorted(self._row_ids[~self._is_retained].tolist())

    def _find(self, photo_ids: Sequence[str], column: Hashes, values: Sequence[bytes]) -> Indices:
        """The row of each id with a value in a column; -1 if there is none, or the value is empty."""
        starts, stops = self._spans(photo_ids)
        wanted, found = np.array(values, HASH_TYPE), np.full(len(starts), -1)
        for offset in range((stops - starts).max(initial=0)):
            rows = np.minimum(starts + offset, len(column) - 1)
            is_found = (starts + offset < stops) & (column[rows] == wanted) & (wanted != b"")
            found[is_found] = rows[is_found]
        return found

    def _spans(self, photo_ids: Sequence[str]) -> tuple[Indices, Indices]:
        hashes = short_hashes(photo_ids)
        return self.id_hashes.searchsorted(hashes, "left"), self.id_hashes.searchsorted(hashes, "right")


def read_existing_rows(dataset: Table | None, metadata_columns: Sequence[str]) -> ExistingRows:
    """Read the rows of a table version; None gives no rows."""
    id_hashes: list[bytes] = []
    fingerprints: list[bytes] = []
    row_ids: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
    columns = ["photo_id", "category", "content", *metadata_columns]
    for batch in dataset.to_batches(columns=columns, with_row_id=True) if dataset is not None else ():
        row_ids.append(batch[ROW_ID].to_numpy())
        rows = zip(*(batch[name].to_pylist() for name in columns), strict=True)
        for photo_id, category, content, *metadata in rows:
            id_hashes.append(short_hash(photo_id))
            fingerprints.append(fingerprint(photo_id, category, content, metadata))
    return ExistingRows(
        np.array(id_hashes, HASH_TYPE), np.array(fingerprints, HASH_TYPE), np.concatenate(row_ids)
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
