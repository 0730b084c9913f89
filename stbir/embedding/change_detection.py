"""Change detection: photos whose file has the identity that the gallery has stored are not read.

A join of the listed photos with the rows of the table, one partition by id hash after the other. Its results
are on disk by partition, and are read in the order of the catalogue.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stbir.catalogue.photo import PART_SIZE, Part
from stbir.embedding.decode import DecodedPart, UnreadPart
from stbir.embedding.listing import LISTED, Chunk, Listing
from stbir.gallery.arrays import Indices, Mask
from stbir.gallery.existing_rows import ExistingRows
from stbir.gallery.fingerprint import HASH_TYPE, Hashes
from stbir.gallery.partitioned_records import NUM_PARTITIONS, PartitionedRecords, Partitions, Records
from stbir.storage.scratch_file import open_scratch_file

PHOTO_ROW = np.dtype([("id", HASH_TYPE), ("fingerprint", HASH_TYPE)])
# `known`: which of the photo's rows has the identity of its file; -1 for none.
_MATCH = np.dtype([*LISTED.descr, ("is_duplicate", bool), ("num_rows", np.int32), ("known", np.int32)])


def detect_changes(
    listing: Listing, rows: PartitionedRecords, retained: PartitionedRecords
) -> Iterator[DecodedPart | UnreadPart]:
    """The number of photos that the table has unchanged, and parts of the others, in the catalogue's order.

    `rows`: of the table (ROW). The rows of unchanged photos are added to `retained` (PHOTO_ROW). A part that
    is not divisible is read as a whole if one of its photos may have changed.
    """
    matches = _Matches(listing, rows)
    pending: list[tuple[str, object, bool, bytes, list[bytes]]] = []  # of divisible parts
    for chunk in listing.chunks():
        photos = matches.read_next(chunk.partitions)
        parts = _mark_whole_parts(chunk, photos)
        if not photos.is_unread.all():
            retained.append(photos.unchanged_rows())
            yield DecodedPart(num_unchanged=int((~photos.is_unread).sum()))
        for part, places in parts:
            if part.is_divisible:
                pending += zip(part.ids, part.location, *photos.columns(places), strict=True)
            else:
                yield UnreadPart(part, *photos.columns(places))
        while len(pending) >= PART_SIZE:
            yield _unread_part(pending[:PART_SIZE])
            del pending[:PART_SIZE]
    if pending:
        yield _unread_part(pending)


@dataclass(frozen=True)
class _PhotoMatches:
    """Photos in the order of the catalogue. The rows of photo n have the fingerprints from `starts[n]` on."""

    matches: Records
    starts: Indices
    fingerprints: Hashes
    is_unread: Mask

    def unchanged_rows(self) -> Records:
        """The rows of the photos that are not read."""
        matches, starts = self.matches[~self.is_unread], self.starts[~self.is_unread]
        rows = np.empty(len(matches), PHOTO_ROW)
        rows["id"], rows["fingerprint"] = matches["id"], self.fingerprints[starts + matches["known"]]
        return rows

    def columns(self, places: Indices) -> tuple[list[bool], list[bytes], list[list[bytes]]]:
        """Whether photos are duplicates, their identities, and the fingerprints of their rows."""
        photos, starts = self.matches[places], self.starts[places].tolist()
        spans = zip(starts, photos["num_rows"].tolist(), strict=True)
        fingerprints = [self.fingerprints[start : start + count].tolist() for start, count in spans]
        return photos["is_duplicate"].tolist(), photos["identity"].tolist(), fingerprints


def _mark_whole_parts(chunk: Chunk, photos: _PhotoMatches) -> list[tuple[Part, Indices]]:
    """The parts to read, with the places of their photos; marks all photos of one that is not divisible."""
    if not photos.is_unread.any():
        return []
    unread, start = [], 0
    for part in chunk.parts:
        places = np.arange(start, start := start + len(part.ids))
        selected = places[photos.is_unread[places]]
        if not part.is_divisible and len(selected):
            photos.is_unread[places] = True
            unread.append((part, places))
        elif len(selected):
            numbers = (selected - places[0]).tolist()
            ids, location = ([values[n] for n in numbers] for values in (part.ids, part.location))
            unread.append((Part(ids, location), selected))
    return unread


def _unread_part(photos: Sequence[tuple[str, object, bool, bytes, list[bytes]]]) -> UnreadPart:
    photo_ids, locations, *columns = map(list, zip(*photos, strict=True))
    return UnreadPart(Part(photo_ids, locations), *columns)


class _Matches:
    """The matches of all photos, and the fingerprints of their rows, on disk."""

    def __init__(self, listing: Listing, rows: PartitionedRecords) -> None:
        self._matches, self._fingerprints = _Streams(_MATCH), _Streams(np.dtype(HASH_TYPE))
        for listed, existing in zip(listing.hashes.partitions(), rows.partitions(), strict=True):
            matches, fingerprints = _match(listed, ExistingRows(existing))
            self._matches.append(matches)
            self._fingerprints.append(fingerprints)

    def read_next(self, partitions: Partitions) -> _PhotoMatches:
        """The next photos, which are in these partitions."""
        counts = np.bincount(partitions, minlength=NUM_PARTITIONS)
        matches = self._matches.read_next(counts)  # by partition
        num_rows = matches["num_rows"].astype(np.int64)
        ends = np.concatenate([[0], num_rows.cumsum()])
        fingerprints = self._fingerprints.read_next(np.diff(ends[np.concatenate([[0], counts.cumsum()])]))
        order = np.argsort(np.argsort(partitions, kind="stable"))
        matches, starts = matches[order], ends[:-1][order]
        is_unread = (matches["known"] < 0) | matches["is_duplicate"]
        return _PhotoMatches(matches, starts, fingerprints, is_unread)


class _Streams:
    """One array a partition in a temporary file, each of which is read from its start on."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype, self._file = dtype, open_scratch_file(self)
        self._offsets: list[int] = []

    def append(self, array: Records) -> None:
        """Write the array of the next partition."""
        self._offsets.append(self._file.tell())
        self._file.write(array.tobytes())
        self._file.flush()

    def read_next(self, counts: Indices) -> Records:
        """The next items of each partition, as many as `counts` has of it."""
        items = []
        for partition in np.flatnonzero(counts).tolist():
            size = int(counts[partition]) * self._dtype.itemsize
            items.append(os.pread(self._file.fileno(), size, self._offsets[partition]))
            self._offsets[partition] += size
        return np.frombuffer(b"".join(items), self._dtype)


def _match(listed: Records, existing: ExistingRows) -> tuple[Records, Hashes]:
    """The matches of a partition's photos, and the fingerprints of their rows one after the other."""
    matches = np.zeros(len(listed), _MATCH)
    matches["id"], matches["identity"] = listed["id"], listed["identity"]
    matches["is_duplicate"] = _is_duplicate(listed["id"])
    starts, stops = existing.spans(listed["id"])
    known = existing.find(listed["id"], "identity", listed["identity"])
    matches["num_rows"] = num_rows = stops - starts
    matches["known"] = np.where(known < 0, -1, known - starts)
    rows = np.arange(num_rows.sum()) + np.repeat(starts - (num_rows.cumsum() - num_rows), num_rows)
    return matches, existing.rows["fingerprint"][rows]


def _is_duplicate(ids: Hashes) -> Mask:
    """Whether an earlier photo has the id."""
    order = np.argsort(ids, kind="stable")
    is_duplicate = np.zeros(len(ids), bool)
    is_duplicate[order[1:]] = ids[order[1:]] == ids[order[:-1]]
    return is_duplicate
