"""The photos a run may draw from, as arrays: who is who and where the pictures lie, but no picture."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from stbir.data.shards import Shards
from stbir.errors import InputError

Ints = NDArray[np.int64]
UNKNOWN = -1


@dataclass(frozen=True)
class Photos:
    """Every photo a run may draw from, without pictures. Arrays are (P,); `texts` has P captions.

    `place` indexes `places`, the row groups (URI, file, group) that hold the photos, `row` counts inside
    one. `label` and `text_key` are -1 where unknown. `aux` marks photos of other data sets.
    """

    places: list[tuple[str, str, int]]
    place: Ints
    row: Ints
    sketches: Ints
    label: Ints
    text_key: Ints
    aux: NDArray[np.bool_]
    texts: list[str | None]
    ids: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def digest(self) -> str:
        """What the order of training hangs on: which photos, how many sketches, which captions and labels."""
        total = hashlib.sha256("\0".join(self.ids).encode())
        for column in (self.place, self.row, self.sketches, self.label, self.text_key, self.aux):
            total.update(column.tobytes())
        return f"sha256:{total.hexdigest()}"


def index_photos(
    shards: Shards, splits: Sequence[str], classes: Sequence[str], aux: Sequence[Shards] = ()
) -> Photos:
    """The photos of the named splits, then those of `aux` shards (all splits).

    Raises InputError where a split is empty.
    """
    for split in splits:
        shards.split(split)
    columns: dict[str, list[object]] = {f.name: [] for f in fields(Photos)}
    labels = {name: label for label, name in enumerate(classes)}
    _add(columns, shards, frozenset(splits), labels, aux=False)
    for more in aux:
        _add(columns, more, None, {}, aux=True)
    arrays = {n: np.array(columns[n], np.int64) for n in ("place", "row", "sketches", "label", "text_key")}
    return Photos(
        places=columns["places"],  # type: ignore[arg-type]
        texts=columns["texts"],  # type: ignore[arg-type]
        ids=columns["ids"],  # type: ignore[arg-type]
        aux=np.array(columns["extra"], bool),
        **arrays,
    )


def _add(
    columns: dict[str, list[object]],
    shards: Shards,
    splits: frozenset[str] | None,
    labels: dict[str, int],
    aux: bool,
) -> None:
    place: tuple[str, str, int] | None = None
    row = 0
    for photo in shards.index.to_pylist():
        here = (shards.folder.uri, photo["file"], photo["group"])
        row = row + 1 if here == place else 0
        if here != place:
            place = here
            columns["places"].append(here)
        if splits is None or photo["split"] in splits:
            _add_photo(columns, photo, row, labels, aux)


def _add_photo(
    columns: dict[str, list[object]], photo: dict[str, object], row: int, labels: dict[str, int], aux: bool
) -> None:
    text = photo["text"]
    values = {
        "place": len(columns["places"]) - 1,
        "row": row,
        "sketches": photo["sketch_count"],
        "label": labels.get(str(photo["class"]), UNKNOWN),
        "text_key": UNKNOWN if text is None else key(str(text)),
        "extra": aux,
        "texts": text,
        "ids": photo["photo_id"],
    }
    for name, value in values.items():
        columns[name].append(value)


def key(text: str) -> int:
    """A whole number that stands for a string: equal strings, equal keys, on every worker."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


def classes_of(shards: Shards, splits: Sequence[str]) -> list[str]:
    """The class names of the given splits, sorted. Raises InputError where a photo has none."""
    index = shards.index.select(["photo_id", "class", "split"]).to_pylist()
    photos = [photo for photo in index if photo["split"] in splits]
    for photo in photos:
        if photo["class"] is None:
            raise InputError(
                f"{shards.folder.uri}: class: photo {photo['photo_id']} has none, and the recipe needs"
                " classes; add a class file, or take a recipe without category knowledge"
            )
    return sorted({photo["class"] for photo in photos})
