"""The photos of a training run as arrays: labels, captions, row groups; no image data."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stbir.data.holdout import is_held_out
from stbir.data.shards import Shards
from stbir.errors import InputError

IntArray = NDArray[np.int64]
UNKNOWN = -1


@dataclass(frozen=True)
class PhotoIndex:
    """All photos that a run can sample, without image data. Arrays are (P,); lists have P entries.

    `row_group` indexes `row_groups`, the (URI, file, group) that hold the photos. `row` is the row inside
    the group. `label` and `text_key` are -1 where unknown. `aux` marks photos of auxiliary data sets.
    """

    row_groups: list[tuple[str, str, int]]
    row_group: IntArray
    row: IntArray
    sketch_count: IntArray
    label: IntArray
    text_key: IntArray
    aux: NDArray[np.bool_]
    texts: list[str | None]
    ids: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def digest(self) -> str:
        """SHA-256 of everything that determines the sample order: ids, sketch counts, captions, labels."""
        total = hashlib.sha256("\0".join(self.ids).encode())
        for column in (self.row_group, self.row, self.sketch_count, self.label, self.text_key, self.aux):
            total.update(column.tobytes())
        return f"sha256:{total.hexdigest()}"


def build_photo_index(
    shards: Shards,
    splits: Sequence[str],
    classes: Sequence[str],
    aux: Sequence[Shards] = (),
    held_out: bool = False,
) -> PhotoIndex:
    """Index the photos of the named splits, then those of the `aux` shards (all splits, no labels).

    `held_out`: leave out the photos held out for validation (`stbir.data.holdout`), except auxiliary ones.
    Raises InputError if a split is empty.
    """
    for split in splits:
        shards.select_split(split)
    row_groups: list[tuple[str, str, int]] = []
    labels = {name: label for label, name in enumerate(classes)}
    photos = [
        {**photo, "label": labels.get(photo["class"], UNKNOWN), "aux": False}
        for photo in _located_photos(shards, row_groups)
        if photo["split"] in splits and not (held_out and is_held_out(photo["photo_id"]))
    ]
    for aux_shards in aux:
        photos += [
            {**photo, "label": UNKNOWN, "aux": True} for photo in _located_photos(aux_shards, row_groups)
        ]
    texts = [photo["text"] for photo in photos]
    columns = ("row_group", "row", "sketch_count", "label")
    return PhotoIndex(
        row_groups=row_groups,
        **{name: np.array([photo[name] for photo in photos], np.int64) for name in columns},
        text_key=np.array([UNKNOWN if text is None else hash_text(text) for text in texts], np.int64),
        aux=np.array([photo["aux"] for photo in photos], bool),
        texts=texts,
        ids=[photo["photo_id"] for photo in photos],
    )


def _located_photos(shards: Shards, row_groups: list[tuple[str, str, int]]) -> Iterator[dict[str, Any]]:
    """The index rows with `row_group` and `row`. Appends the row groups of the shards to `row_groups`."""
    photos = shards.index.to_pylist()
    for (file, group), members in groupby(photos, key=lambda photo: (photo["file"], photo["group"])):
        row_groups.append((shards.folder.uri, file, group))
        for row, photo in enumerate(members):
            yield {**photo, "row_group": len(row_groups) - 1, "row": row}


def hash_text(text: str) -> int:
    """A 56-bit hash of a string, equal on all workers."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


def class_names(shards: Shards, splits: Sequence[str]) -> list[str]:
    """The sorted class names of the given splits. Raises InputError if a photo has no class."""
    index = shards.index.select(["photo_id", "class", "split"]).to_pylist()
    photos = [photo for photo in index if photo["split"] in splits]
    for photo in photos:
        if photo["class"] is None:
            raise InputError(
                f"{shards.folder.uri}: class: photo {photo['photo_id']} has none, and the recipe needs"
                " classes; add a class file, or use a recipe without class labels"
            )
    return sorted({photo["class"] for photo in photos})
