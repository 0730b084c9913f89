"""The share of a catalogue that one of several drivers embeds, by a hash of the photo id."""

import re
from dataclasses import dataclass

from stbir.errors import InputError
from stbir.gallery.arrays import Mask
from stbir.gallery.fingerprint import Hashes
from stbir.gallery.partitioned_records import NUM_PARTITIONS, partition_of


@dataclass(frozen=True)
class CatalogueShare:
    """Share `number`, from 1, of `count`."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "CatalogueShare":
        """I/N. Raises InputError, naming --part, for other text."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        number, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= count <= NUM_PARTITIONS:
            raise InputError(f"--part: {text!r} is not I/N with 1 <= I <= N <= {NUM_PARTITIONS}, such as 2/4")
        return cls(number, count)

    @property
    def name(self) -> str:
        """I-of-N, for names of files."""
        return f"{self.number}-of-{self.count}"

    def contains(self, ids: Hashes) -> Mask:
        """Whether the photo of each id hash is in the share."""
        is_in_share: Mask = partition_of(ids) % self.count == self.number - 1
        return is_in_share
