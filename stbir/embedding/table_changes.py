"""What an update changes in a gallery's table, by joins of one partition after the other."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from stbir.embedding.change_detection import PHOTO_ROW
from stbir.embedding.decode import DecodedPart
from stbir.embedding.listing import Listing
from stbir.embedding.removal_guard import count_absent
from stbir.gallery.existing_rows import ExistingRows, count_changes
from stbir.gallery.fingerprint import HASH_TYPE, fingerprint, short_hashes
from stbir.gallery.partitioned_records import NUM_PARTITIONS, PartitionedRecords, Records

_ID = np.dtype([("id", HASH_TYPE)])
_STALE = np.dtype([("row_id", np.uint64)])
# Of a row id in Lance; above them is the number of the fragment. In Milvus an id is a position, below them:
# all stale rows are in one partition and deleted at once, since a deletion moves other rows.
_FRAGMENT_BITS = 32


class PhotoOutcomes:
    """The photos of a listing whose row stays, that have a new row, and the files that are no photos."""

    def __init__(self) -> None:
        self.retained, self.appended = PartitionedRecords(PHOTO_ROW), PartitionedRecords(PHOTO_ROW)
        self.not_taken = PartitionedRecords(_ID)

    def add(self, decoded: DecodedPart) -> None:
        """The outcomes of a part. `detect_changes` has added those of unchanged photos."""
        columns = (decoded.photo_ids, decoded.categories, decoded.contents, decoded.metadata)
        self.appended.append(
            _photo_rows(decoded.photo_ids, [fingerprint(*row) for row in zip(*columns, strict=True)])
        )
        failed = [(fault.photo_id, b"") for fault in decoded.failed]  # keep the last row
        for rows in (decoded.existing, failed):
            self.retained.append(_photo_rows([photo_id for photo_id, _ in rows], [each for _, each in rows]))
        self.not_taken.append(short_hashes(fault.photo_id for fault in decoded.not_taken).view(_ID))


def _photo_rows(photo_ids: list[str], fingerprints: list[bytes]) -> Records:
    rows = np.empty(len(photo_ids), PHOTO_ROW)
    rows["id"], rows["fingerprint"] = short_hashes(photo_ids), fingerprints
    return rows


@dataclass
class TableChanges:
    """What a job does to the table.

    stale: ids of the rows to delete, by fragment. after: the rows then, by fingerprint. num_removed:
    published photos that are in the catalogue no more. counts: photos that are `new`, `changed` and `removed`
    since the published version.
    """

    stale: PartitionedRecords = field(default_factory=lambda: PartitionedRecords(_STALE))
    after: PartitionedRecords = field(default_factory=lambda: PartitionedRecords(PHOTO_ROW, "fingerprint"))
    num_retained: int = 0
    num_removed: int = 0
    counts: Counter[str] = field(default_factory=lambda: Counter(new=0, changed=0, removed=0))


def find_table_changes(
    listing: Listing,
    rows: PartitionedRecords,
    outcomes: PhotoOutcomes,
    published: PartitionedRecords,
    comparable: PartitionedRecords,
) -> TableChanges:
    """Compare the outcomes of all listed photos with the rows (ROW) of the table before the job, and of the
    published version; `comparable` are those of the latter that have vectors of the same checkpoint."""
    changes = TableChanges()
    for partition in range(NUM_PARTITIONS):
        existing = ExistingRows(rows.read(partition))
        retained = outcomes.retained.read(partition)
        existing.retain(retained["id"], retained["fingerprint"])
        stale = existing.rows["row_id"][~existing.is_retained]
        changes.stale.append(stale.view(_STALE), (stale >> np.uint64(_FRAGMENT_BITS)).astype(np.uint8))
        changes.num_retained += int(existing.is_retained.sum())
        rows_after = existing.rows[existing.is_retained][["id", "fingerprint"]].astype(PHOTO_ROW)
        after = np.concatenate([rows_after, outcomes.appended.read(partition)])
        changes.after.append(after)
        changes.counts.update(count_changes(comparable.read(partition), after))
        present = listing.hashes.read(partition)["id"]
        not_taken = outcomes.not_taken.read(partition)["id"]
        changes.num_removed += count_absent(published.read(partition)["id"], present, not_taken)
    return changes
