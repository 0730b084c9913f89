"""The texts of photos, by their place in the table: in memory, mapped from files, or read piece by piece."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stbir.gallery.arrays import Index

TEXT = "text"
_ENDS, _UTF8 = "ends.i64", "texts.utf8"
Ends = NDArray[np.int64]
Bytes = NDArray[np.uint8]


class TextsAt(Protocol):
    """What knows the texts of photos."""

    def at(self, places: Index) -> list[str | None]:
        """Those of the rows at these places; None where a photo has none."""


class NoTexts:
    """Of a gallery whose catalogue has none."""

    def at(self, places: Index) -> list[str | None]:
        """As in TextsAt."""
        return [None] * len(places)


class Texts:
    """UTF-8, one text behind the other: row n's lies between `ends[n]` and `ends[n + 1]`. Empty is none."""

    def __init__(self, ends: Ends, utf8: Bytes) -> None:
        self._ends, self._utf8 = ends, utf8

    def at(self, places: Index) -> list[str | None]:
        """As in TextsAt."""
        bounds = zip(self._ends[places].tolist(), self._ends[places + 1].tolist(), strict=True)
        return [self._utf8[start:end].tobytes().decode() or None for start, end in bounds]


class TextsInTable:
    """Reads them from the table whenever they are asked for: no memory, some milliseconds each time."""

    def __init__(self, dataset: lance.LanceDataset) -> None:
        self._dataset = dataset

    def at(self, places: Index) -> list[str | None]:
        """As in TextsAt."""
        return [text or None for text in self._dataset.take(places, columns=[TEXT])[TEXT].to_pylist()]


class TooManyError(Exception):
    """They take more bytes than they may."""


def has_texts(dataset: lance.LanceDataset) -> bool:
    """Whether it has a column of them. One of that name that holds numbers, say, is none."""
    place = dataset.schema.get_field_index(TEXT)
    kind = dataset.schema.field(place).type if place >= 0 else pa.null()
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def texts_held(dataset: lance.LanceDataset, most_bytes: int) -> Texts:
    """All of them in memory. Raises TooManyError."""
    parts = list(_parts(dataset, most_bytes))
    return Texts(np.concatenate([ends for ends, _ in parts]), np.concatenate([utf8 for _, utf8 in parts]))


def write_texts(dataset: lance.LanceDataset, folder: Path, most_bytes: int) -> None:
    """Write them for `texts_mapped`, into a folder that is there. Raises TooManyError."""
    with (folder / _ENDS).open("wb") as ends_file, (folder / _UTF8).open("wb") as utf8_file:
        for ends, utf8 in _parts(dataset, most_bytes):
            ends_file.write(ends.tobytes())
            utf8_file.write(utf8.tobytes())


def texts_mapped(folder: Path) -> Texts:
    """What `write_texts` wrote, on disk until it is asked for."""
    return Texts(_mapped(folder / _ENDS, np.int64), _mapped(folder / _UTF8, np.uint8))


def _mapped(file: Path, kind: type) -> NDArray[Any]:
    # An empty file cannot be mapped.
    return np.memmap(file, kind, "r") if file.stat().st_size else np.empty(0, kind)


def _parts(dataset: lance.LanceDataset, most_bytes: int) -> Iterator[tuple[Ends, Bytes]]:
    """Ends and UTF-8, some rows at a time; first of all where the first row's starts."""
    size, taken = 0, 0
    yield np.zeros(1, np.int64), np.empty(0, np.uint8)
    for batch in dataset.to_batches(columns=[TEXT]):
        column = batch[TEXT].fill_null("").cast(pa.large_string())
        ends, utf8 = _flat(column)
        taken += ends.nbytes + utf8.nbytes
        if taken > most_bytes:
            raise TooManyError
        yield ends + size, utf8
        size += len(utf8)


def _flat(column: pa.LargeStringArray) -> tuple[Ends, Bytes]:
    """Where each text ends, counted from the start of the first, and all of them."""
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    utf8 = np.frombuffer(data or b"", np.uint8)[bounds[0] : bounds[-1]]
    return bounds[1:] - bounds[0], utf8
