"""Guards published photos that a catalogue no longer has: it may be incomplete, e.g. an unmounted folder."""

from collections.abc import Iterable

import numpy as np

from stbir.errors import InputError
from stbir.gallery.arrays import Indices
from stbir.gallery.existing_rows import read_rows
from stbir.gallery.fingerprint import Hashes, short_hashes
from stbir.gallery.table import Table


def check_removal(num_removed: int, num_photos: int, max_removed: float) -> None:
    """Raises InputError if more than the share `max_removed` of a gallery's photos would be removed."""
    if num_removed > max_removed * num_photos:
        raise InputError(
            f"--max-removed: {num_removed} of {num_photos} published photos would be removed, more than"
            f" {max_removed:g} of them; check that the photos are complete, or give --yes to remove them"
        )


def check_photo_ids(published: Table | None, photo_ids: Iterable[str], max_removed: float) -> None:
    """As `check_removal`, for photos that replace those of a published version, if there is one."""
    hashes = np.concatenate([short_hashes(()), *(rows["id"] for rows in read_rows(published, None))])
    check_removal(count_absent(hashes, short_hashes(photo_ids)), len(hashes), max_removed)


def count_absent(published: Hashes, listed: Hashes, not_taken: Hashes | None = None) -> int:
    """The number of published photos that no listed file is, except for files that are not taken."""
    num_not_taken = _count_each(published, short_hashes(()) if not_taken is None else not_taken)
    return int((_count_each(published, listed) <= num_not_taken).sum())


def _count_each(ids: Hashes, among: Hashes) -> Indices:
    """How often each id is among others."""
    among = np.sort(among)
    return among.searchsorted(ids, "right") - among.searchsorted(ids, "left")
