"""Captions of a gallery's photos by row index: in memory, memory-mapped, or read from the table."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stbir.gallery.arrays import Indices

CAPTION = "text"  # the column's name
_OFFSETS, _DATA = "ends.i64", "texts.utf8"
Offsets = NDArray[np.int64]
Bytes = NDArray[np.uint8]


class CaptionStore(Protocol):
    """Random access to captions."""

    def take(self, indices: Indices) -> list[str | None]:
        """The captions of these rows; None for a photo without a caption."""


class CaptionArray:
    """Captions in one UTF-8 buffer. Row n spans `offsets[n]` to `offsets[n + 1]`; an empty span is None."""

    def __init__(self, offsets: Offsets, data: Bytes) -> None:
        self._offsets, self._data = offsets, data

    def take(self, indices: Indices) -> list[str | None]:
        """As in CaptionStore."""
        spans = zip(self._offsets[indices].tolist(), self._offsets[indices + 1].tolist(), strict=True)
        return [self._data[start:stop].tobytes().decode() or None for start, stop in spans]


class TableCaptions:
    """Reads captions from the table on each call. Takes no memory, but some milliseconds a call."""

    def __init__(self, dataset: lance.LanceDataset) -> None:
        self._dataset = dataset

    def take(self, indices: Indices) -> list[str | None]:
        """As in CaptionStore."""
        return [text or None for text in self._dataset.take(indices, columns=[CAPTION])[CAPTION].to_pylist()]


class TooLargeError(Exception):
    """The captions exceed the byte limit."""


def has_captions(dataset: lance.LanceDataset) -> bool:
    """Whether the table has a caption column, which must be of a string type."""
    index = dataset.schema.get_field_index(CAPTION)
    data_type = dataset.schema.field(index).type if index >= 0 else pa.null()
    return bool(pa.types.is_string(data_type) or pa.types.is_large_string(data_type))


def load_captions(dataset: lance.LanceDataset, max_bytes: int) -> CaptionArray:
    """Read all captions into memory. Raises TooLargeError."""
    chunks, num_bytes = [], 0
    for offsets, data in _chunks(dataset):
        chunks.append((offsets, data))
        num_bytes += offsets.nbytes + data.nbytes
        if num_bytes > max_bytes:
            raise TooLargeError
    offsets, data = (np.concatenate(arrays) for arrays in zip(*chunks, strict=True))
    return CaptionArray(offsets, data)


def write_captions(dataset: lance.LanceDataset, folder: Path, has_room: Callable[[int], bool]) -> None:
    """Write all captions into an existing folder, for `memmap_captions`. `has_room` tells whether so many
    more bytes may be written. Raises TooLargeError if not."""
    with (folder / _OFFSETS).open("wb") as offsets_file, (folder / _DATA).open("wb") as data_file:
        for offsets, data in _chunks(dataset):
            if not has_room(offsets.nbytes + data.nbytes):
                raise TooLargeError
            offsets_file.write(offsets.tobytes())
            data_file.write(data.tobytes())


def memmap_captions(folder: Path) -> CaptionArray:
    """Memory-map the files of `write_captions`."""
    return CaptionArray(_memmap(folder / _OFFSETS, np.int64), _memmap(folder / _DATA, np.uint8))


def _memmap(file: Path, dtype: type) -> NDArray[Any]:
    # An empty file cannot be mapped.
    return np.memmap(file, dtype, "r") if file.stat().st_size else np.empty(0, dtype)


def _chunks(dataset: lance.LanceDataset) -> Iterator[tuple[Offsets, Bytes]]:
    """Offsets and UTF-8 data, batch by batch. The first chunk is the leading offset 0."""
    data_bytes = 0
    yield np.zeros(1, np.int64), np.empty(0, np.uint8)
    for batch in dataset.to_batches(columns=[CAPTION]):
        ends, data = _ends_and_data(batch[CAPTION].fill_null("").cast(pa.large_string()))
        yield ends + data_bytes, data
        data_bytes += len(data)


def _ends_and_data(column: pa.LargeStringArray) -> tuple[Offsets, Bytes]:
    """The end of each string, relative to the start of the first, and the UTF-8 data."""
    _, offsets_buffer, data_buffer = column.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(data_buffer or b"", np.uint8)[offsets[0] : offsets[-1]]
    return offsets[1:] - offsets[0], data
