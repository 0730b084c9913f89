"""The CPU half of embed_gallery: shards → decoded photos. Tasks load no model library for it."""

from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data.expressions import col

from stbir.data.shards import Shards
from stbir.data.transforms import photo_pixels
from stbir.errors import InputError
from stbir.retrieval.thumbnail import thumbnail

Batch = dict[str, np.ndarray]


def read_photos(shards: Shards, split: str | None) -> ray.data.Dataset:
    """The rows of a split: id, category and encoded photo; sketches are not read."""
    files = [shards.folder.at(name) for name in shards.files]
    rows = ray.data.read_parquet(files, filesystem=shards.folder.arrow)
    if split is not None:
        rows = rows.filter(expr=col("split") == split)
    return rows.select_columns(["photo_id", "category", "photo"])


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


def decode(rows: pa.Table, size: int, quarantine: Any) -> Batch:
    """Encoded photos → uint8 pixels (B, 3, size, size) and a thumbnail each, a row at a time."""
    good, reasons = [], {}
    for row in rows.to_pylist():
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
