"""The CPU half of embed_gallery: shards → decoded photos. Tasks load no model library for it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import ray
import ray.data

from stbir.data.schema import Row
from stbir.data.shards import Shards
from stbir.data.transforms import photo_pixels
from stbir.errors import InputError
from stbir.retrieval.thumbnail import thumbnail

Batch = dict[str, np.ndarray]
_COLUMNS = ["photo_id", "category", "split", "photo"]


class Quarantine:
    """Photos that do not decode. Keyed by id, so that a task run twice counts once."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def add(self, reasons: dict[str, str]) -> None:
        """Note photo id → reason."""
        self._reasons.update(reasons)

    def reasons(self) -> dict[str, str]:
        """All that was noted."""
        return self._reasons


def decoded_photos(
    shards: Shards, split: str | None, size: int, batch: int, quarantine: Any
) -> ray.data.Dataset:
    """The photos of a split (None: all), decoded, in the order of the shards; a task reads a row group."""
    groups = shards.split(split).group_by(["file", "group"], use_threads=False).aggregate([])
    lean = replace(shards)  # without the index that it has read
    how = {"shards": lean, "split": split, "size": size, "batch": batch, "quarantine": quarantine}
    plan = ray.data.from_items(groups.to_pylist(), override_num_blocks=groups.num_rows)
    return plan.map_batches(_decode_group, batch_size=1, batch_format="numpy", fn_kwargs=how)


def _decode_group(
    place: dict[str, Any], shards: Shards, split: str | None, size: int, batch: int, quarantine: Any
) -> Iterator[Batch]:
    table = shards.read_group(str(place["file"][0]), int(place["group"][0]), _COLUMNS)
    rows = [row for row in table.to_pylist() if split is None or row["split"] == split]
    for start in range(0, len(rows), batch):
        yield decode(rows[start : start + batch], size, quarantine)


def decode(rows: list[Row], size: int, quarantine: Any) -> Batch:
    """Encoded photos → uint8 pixels (B, 3, size, size) and a thumbnail each, a row at a time."""
    good, reasons = [], {}
    for row in rows:
        try:
            good.append((row, photo_pixels(row["photo"], size), thumbnail(row["photo"])))
        except InputError as error:
            reasons[row["photo_id"]] = str(error)
    if reasons:
        ray.get(quarantine.add.remote(reasons))
    return {
        "photo_id": np.array([row["photo_id"] for row, _, _ in good], object),
        "category": np.array([row["category"] for row, _, _ in good], object),
        "thumbnail": np.array([small for _, _, small in good], object),
        "pixels": np.array([pixels for _, pixels, _ in good], np.uint8).reshape(-1, 3, size, size),
    }
