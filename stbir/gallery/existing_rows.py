"""The rows that a gallery's table has already, and what became of them."""

from collections.abc import Iterable, Sequence

import lance
import numpy as np
from numpy.typing import NDArray

from stbir.gallery.fingerprint import LETTERS, fingerprint, short

Keys = NDArray[np.bytes_]


class Known:
    """The rows that a table has, by id: about 60 bytes each. Rows that are not kept are to go at the end."""

    def __init__(self, ids: Keys, prints: Keys, addresses: NDArray[np.uint64]) -> None:
        order = np.argsort(ids, kind="stable")
        self.ids, self.prints, self._addresses = ids[order], prints[order], addresses[order]
        self._kept = np.zeros(len(ids), bool)

    def prints_of(self, photo_ids: Sequence[str]) -> dict[str, list[bytes]]:
        """The fingerprints of those ids that the table has; in the order of the table."""
        first, last = self._where(photo_ids)
        there = zip(photo_ids, first, last, strict=True)
        return {photo_id: self.prints[a:b].tolist() for photo_id, a, b in there if a < b}

    def keep(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """Of each id, the row with that fingerprint stays; any other with this id goes."""
        for photo_id, wanted in rows:
            [first], [last] = self._where([photo_id])
            self._kept[first + self.prints[first:last].tolist().index(wanted)] = True

    def keep_newest(self, photo_ids: Iterable[str]) -> None:
        """Of each id that the table has, the row that was written last stays."""
        for photo_id in photo_ids:
            [first], [last] = self._where([photo_id])
            self._kept[last - 1] |= first < last

    @property
    def kept(self) -> int:
        """How many rows stay."""
        return int(self._kept.sum())

    def to_go(self) -> list[int]:
        """The addresses of the rows that do not stay, ascending."""
        return sorted(self._addresses[~self._kept].tolist())

    def _where(self, photo_ids: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        wanted = np.array([short(photo_id) for photo_id in photo_ids], f"S{LETTERS}")
        return np.searchsorted(self.ids, wanted, "left"), np.searchsorted(self.ids, wanted, "right")


def known(dataset: lance.LanceDataset | None, fields: Sequence[str]) -> Known:
    """The rows of a version of a gallery's table (None: of none), whose metadata columns are `fields`."""
    ids: list[bytes] = []
    prints: list[bytes] = []
    addresses: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
    columns = ["photo_id", "category", "content", *fields]
    for batch in dataset.to_batches(columns=columns, with_row_id=True) if dataset is not None else ():
        addresses.append(batch["_rowid"].to_numpy())
        for photo_id, category, content, *facts in zip(*(batch[n].to_pylist() for n in columns), strict=True):
            ids.append(short(photo_id))
            prints.append(fingerprint(photo_id, category, content, facts))
    kind = f"S{LETTERS}"
    return Known(np.array(ids, kind), np.array(prints, kind), np.concatenate(addresses))


def changes(before: Known, after: Known) -> dict[str, int]:
    """How many photos are `new`, `changed` and `removed` between two versions; each has an id once."""
    where = np.searchsorted(before.ids, after.ids)
    where[where == len(before.ids)] = 0
    both = before.ids[where] == after.ids if len(before.ids) else np.zeros(len(after.ids), bool)
    same = both & (before.prints[where] == after.prints) if len(before.ids) else both
    return {
        "new": int((~both).sum()),
        "changed": int((both & ~same).sum()),
        "removed": len(before.ids) - int(both.sum()),
    }
