"""Guards published photos that a catalogue no longer has: it may be incomplete, e.g. an unmounted folder."""

from collections.abc import Iterable

import numpy as np

from stbir.catalogue.photo import Catalogue
from stbir.errors import InputError
from stbir.gallery.fingerprint import short_hashes
from stbir.gallery.table import Table


def check_removal(num_removed: int, num_photos: int, max_removed: float) -> None:
    """Raises InputError if more than the share `max_removed` of a gallery's photos would be removed."""
    if num_removed > max_removed * num_photos:
        raise InputError(
            f"--max-removed: {num_removed} of {num_photos} published photos would be removed, more than"
            f" {max_removed:g} of them; check that the photos are complete, or give --yes to remove them"
        )


class RemovalGuard:
    """The published photos, about 25 bytes each, and which of them the catalogue has."""

    def __init__(self, published: Table | None, max_removed: float) -> None:
        """`published`: None if nothing is published. `max_removed`: as for `check_removal`."""
        self._max_removed = max_removed
        batches = published.to_batches(columns=["photo_id"]) if published is not None else ()
        self._hashes = short_hashes(
            photo_id for batch in batches for photo_id in batch["photo_id"].to_pylist()
        )
        self._hashes.sort()
        self._is_present = np.zeros(len(self._hashes), bool)
        self.num_listed = 0  # files of the catalogue; 0 if it was not listed

    def check_listing(self, catalogue: Catalogue) -> None:
        """List the catalogue before anything is embedded, if photos are published. Raises as `check`."""
        if not len(self._hashes):
            return
        for part in catalogue.parts():
            self.num_listed += len(part.ids)
            self.add(part.ids)
        self.check()
        self._is_present[:] = False

    def add(self, photo_ids: Iterable[str]) -> None:
        """Photos that the catalogue has."""
        if not len(self._hashes):
            return
        hashes = short_hashes(photo_ids)
        rows = np.minimum(self._hashes.searchsorted(hashes), len(self._hashes) - 1)
        self._is_present[rows[self._hashes[rows] == hashes]] = True

    def check(self) -> None:
        """Raises InputError if the catalogue lacks too many published photos."""
        num_removed = len(self._hashes) - int(self._is_present.sum())
        check_removal(num_removed, len(self._hashes), self._max_removed)
