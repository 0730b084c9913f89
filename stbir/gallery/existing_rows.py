"""The rows of a gallery's table before a job, by the hash of their photo id, and which of them it retains."""

from collections.abc import Iterator, Sequence

import numpy as np

from stbir.gallery.arrays import Indices, Mask
from stbir.gallery.fingerprint import HASH_TYPE, Hashes, short_hashes
from stbir.gallery.identity_store import ENTRY, IdentityStore
from stbir.gallery.partitioned_records import PartitionedRecords, Records, partitioned
from stbir.gallery.table import ROW_ID, Table, scan_with_ids

# Row ids grow with each append, so that the last row of a photo has the largest one.
ROW = np.dtype(
    [("id", HASH_TYPE), ("fingerprint", HASH_TYPE), ("identity", HASH_TYPE), ("row_id", np.uint64)]
)


class ExistingRows:
    """The rows of a partition. Rows that are not retained become stale."""

    def __init__(self, rows: Records) -> None:
        """`rows`: of the type ROW."""
        self.rows = rows[np.lexsort((rows["row_id"], rows["id"]))]
        self.is_retained: Mask = np.zeros(len(rows), bool)

    def spans(self, ids: Hashes) -> tuple[Indices, Indices]:
        """The first row of each id, and the one after its last."""
        return self.rows["id"].searchsorted(ids, "left"), self.rows["id"].searchsorted(ids, "right")

    def find(self, ids: Hashes, field: str, values: Hashes) -> Indices:
        """The last row of each id with a value in a field; -1 if there is none, or the value is empty."""
        starts, stops = self.spans(ids)
        found = np.full(len(ids), -1)
        for offset in range((stops - starts).max(initial=0)):
            rows = np.minimum(starts + offset, len(self.rows) - 1)
            is_found = (starts + offset < stops) & (self.rows[field][rows] == values) & (values != b"")
            found[is_found] = rows[is_found]
        return found

    def retain(self, ids: Hashes, fingerprints: Hashes) -> None:
        """Retain the row of each id and fingerprint; an empty fingerprint means the last row, if any."""
        is_last = fingerprints == b""
        found = self.find(ids[~is_last], "fingerprint", fingerprints[~is_last])
        assert (found >= 0).all(), "only rows of the table can be retained"
        starts, stops = self.spans(ids[is_last])
        self.is_retained[found] = self.is_retained[stops[starts < stops] - 1] = True


def read_rows(table: Table | None, columns: Sequence[str] | None) -> Iterator[Records]:
    """The rows of a table version, without identities; None gives no rows. `columns`: those of the metadata,
    in the fingerprint; None for rows without fingerprints, of any schema."""
    if table is None:
        return
    names = ["photo_id"] if columns is None else ["photo_id", "category", "content", *columns]
    for batch in scan_with_ids(table, names):
        rows = np.zeros(len(batch), ROW)
        values = [batch[name].to_pylist() for name in names]
        rows["id"], rows["row_id"] = short_hashes(values[0]), batch[ROW_ID].to_numpy()
        if columns is not None:
            rows["fingerprint"] = short_hashes(map(repr, zip(*values, strict=True)))
        yield rows


def with_identities(rows: PartitionedRecords, store: IdentityStore) -> PartitionedRecords:
    """The rows with the latest identity that the store has for their fingerprint, empty if there is none."""
    entries = partitioned(ENTRY, store.read(), key="fingerprint")
    if not len(entries):
        return rows
    by_fingerprint = partitioned(ROW, rows.partitions(), key="fingerprint")
    pairs = zip(by_fingerprint.partitions(), entries.partitions(), strict=True)
    return partitioned(ROW, (_assign_identities(each, known) for each, known in pairs))


def _assign_identities(rows: Records, entries: Records) -> Records:
    if len(entries):
        entries = entries[np.argsort(entries["fingerprint"], kind="stable")]
        last = entries["fingerprint"].searchsorted(rows["fingerprint"], "right") - 1
        is_known = entries["fingerprint"][last] == rows["fingerprint"]
        rows["identity"][is_known] = entries["identity"][last[is_known]]
    return rows


def count_changes(before: Records, after: Records) -> dict[str, int]:
    """Count `new`, `changed` and `removed` photos between two versions of a partition, with unique ids."""
    _, old, new = np.intersect1d(before["id"], after["id"], assume_unique=True, return_indices=True)
    is_same = before["fingerprint"][old] == after["fingerprint"][new]
    return {
        "new": len(after) - len(new),
        "changed": int((~is_same).sum()),
        "removed": len(before) - len(old),
    }
