"""A catalogue, listed once: its parts on disk in their order, and the hashes of its photos in partitions."""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import pyarrow as pa

from stbir.catalogue.photo import Catalogue, Part
from stbir.embedding.catalogue_share import CatalogueShare
from stbir.gallery.fingerprint import HASH_TYPE, Hashes, short_hashes
from stbir.gallery.partitioned_records import PartitionedRecords, Partitions, Records, partition_of
from stbir.storage.scratch_file import open_scratch_file

LISTED = np.dtype([("id", HASH_TYPE), ("identity", HASH_TYPE)])
_CHUNK_PHOTOS = 8192  # in memory at once
_CODEC = "zstd"


@dataclass(frozen=True)
class Chunk:
    """Consecutive photos of a catalogue. `partitions`: of their id hashes, in order."""

    partitions: Partitions
    num_bytes: int  # of the parts
    data: bytes  # compressed

    @property
    def parts(self) -> list[Part]:
        """The parts with the photos."""
        parts: list[Part] = pickle.loads(pa.decompress(self.data, self.num_bytes, _CODEC, asbytes=True))
        return parts


class Listing:
    """The photos of a catalogue, or of one share of it. Some ten bytes of disk a photo for the parts, and 48
    for the hashes; the memory does not depend on their number.

    `hashes`: records LISTED in the order of the catalogue. An identity is empty where it is unknown.
    """

    def __init__(self, catalogue: Catalogue, share: CatalogueShare | None = None) -> None:
        """Lists the catalogue. Raises InputError as it does."""
        self.catalogue, self.hashes = catalogue, PartitionedRecords(LISTED)
        self._file = open_scratch_file(self)
        parts, hashes = list[Part](), list[Records]()
        for part in catalogue.parts():
            selected = part if share is None else _select(part, share)
            if selected.ids:
                parts.append(selected)
                hashes.append(_hash(catalogue, selected))
            if sum(map(len, hashes)) >= _CHUNK_PHOTOS:
                self._write(parts, hashes)
                parts, hashes = [], []
        if parts:
            self._write(parts, hashes)

    @property
    def num_photos(self) -> int:
        """The number of listed files."""
        return len(self.hashes)

    def chunks(self) -> Iterator[Chunk]:
        """The photos in the order of the catalogue."""
        self._file.seek(0)
        while header := self._file.read(24):
            num_photos, num_bytes, size = np.frombuffer(header, np.int64).tolist()
            partitions = np.frombuffer(self._file.read(num_photos), np.uint8)
            yield Chunk(partitions, num_bytes, self._file.read(size))

    def _write(self, parts: list[Part], hashes: list[Records]) -> None:
        records, data = np.concatenate(hashes), pickle.dumps(parts, pickle.HIGHEST_PROTOCOL)
        compressed = pa.compress(data, _CODEC, asbytes=True)
        header = np.array([len(records), len(data), len(compressed)], np.int64)
        for each in (header.tobytes(), partition_of(records["id"]).tobytes(), compressed):
            self._file.write(each)
        self.hashes.append(records)


def _select(part: Part, share: CatalogueShare) -> Part:
    """The photos of a part that belong to a share; all or none if they cannot be read alone."""
    if not part.is_divisible:
        return part if share.contains(short_hashes(part.ids[:1]))[0] else Part([], [])
    is_selected = share.contains(short_hashes(part.ids))
    return Part(list(compress(part.ids, is_selected)), list(compress(part.location, is_selected)))


def _hash(catalogue: Catalogue, part: Part) -> Records:
    records = np.zeros(len(part.ids), LISTED)
    records["id"], records["identity"] = short_hashes(part.ids), _hash_known(catalogue.identities(part))
    return records


def _hash_known(texts: Sequence[str | None]) -> Hashes:
    """The hash of each text; empty for None."""
    hashes = short_hashes(text or "" for text in texts)
    hashes[[text is None for text in texts]] = b""
    return hashes
