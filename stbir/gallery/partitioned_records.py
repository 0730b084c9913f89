"""Records on disk in partitions by a hash: a join has one of them in memory (grace hash join)."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stbir.gallery.fingerprint import Hashes
from stbir.storage.scratch_file import open_scratch_file

NUM_PARTITIONS = 256  # two hexadecimal digits of a hash; with 10^8 records, one has 4 * 10^5
_RUN_RECORDS = 2**14  # written at once
Records = NDArray[Any]  # structured
Partitions = NDArray[np.uint8]


def partition_of(hashes: Hashes) -> Partitions:
    """The partition of each hash (`short_hash`)."""
    codes_N2 = np.ascontiguousarray(hashes).view(np.uint8).reshape(len(hashes), -1)[:, :2]
    digits_N2 = (codes_N2 & 15) + 9 * (codes_N2 >> 6)  # of ASCII: 0 to 9 is 48 to 57, a to f is 97 to 102
    return digits_N2[:, 0] * np.uint8(16) + digits_N2[:, 1]


class PartitionedRecords:
    """Structured records in a temporary file, which ends with the process. Memory: _RUN_RECORDS records, and
    0.06 bytes for each one in the file."""

    def __init__(self, dtype: np.dtype[Any], key: str = "id") -> None:
        """`key`: the field whose hash decides the partition."""
        self.dtype, self._key = dtype, key
        self._file = open_scratch_file(self)
        self._buffer: list[tuple[Records, Partitions]] = []
        self._num_buffered = self._num_written = 0
        self._runs: list[tuple[int, NDArray[np.int32]]] = []  # first record, and the ends of the partitions

    def __len__(self) -> int:
        return self._num_written + self._num_buffered

    def append(self, records: Records, partitions: Partitions | None = None) -> None:
        """Add records to the partitions of their key, or to those given."""
        if not len(records):
            return
        self._buffer.append((records, partition_of(records[self._key]) if partitions is None else partitions))
        self._num_buffered += len(records)
        if self._num_buffered >= _RUN_RECORDS:
            self._write_run()

    def read(self, partition: int) -> Records:
        """The records of a partition, in the order in which they were added."""
        self._write_run()
        runs = (self._read(first, ends, partition) for first, ends in self._runs)
        return np.frombuffer(bytearray(b"".join(runs)), self.dtype)

    def partitions(self) -> Iterator[Records]:
        """The records of each partition in turn."""
        return map(self.read, range(NUM_PARTITIONS))

    def _read(self, first: int, ends: NDArray[np.int32], partition: int) -> bytes:
        start, stop = ends[partition - 1] if partition else 0, ends[partition]
        self._file.seek((first + int(start)) * self.dtype.itemsize)
        return self._file.read(int(stop - start) * self.dtype.itemsize)

    def _write_run(self) -> None:
        """Write the buffer, sorted by partition."""
        if not self._buffer:
            return
        records, partitions = map(np.concatenate, zip(*self._buffer, strict=True))
        self._buffer, self._num_buffered = [], 0
        self._file.seek(self._num_written * self.dtype.itemsize)
        self._file.write(records[np.argsort(partitions, kind="stable")].tobytes())
        ends = np.bincount(partitions, minlength=NUM_PARTITIONS).cumsum().astype(np.int32)
        self._runs.append((self._num_written, ends))
        self._num_written += len(records)


def partitioned(dtype: np.dtype[Any], batches: Iterable[Records], key: str = "id") -> PartitionedRecords:
    """All records of some batches, on disk."""
    records = PartitionedRecords(dtype, key)
    for batch in batches:
        records.append(batch)
    return records
