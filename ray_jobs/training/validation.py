"""The photos that a run validates on, and the score that selects a checkpoint. Imports no model library."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stbir.data.holdout import HELD_OUT_SHARE, is_held_out
from stbir.data.schema import Row
from stbir.data.shards import Shards, open_shards

NO_VALIDATION = "none"


@dataclass(frozen=True)
class Validation:
    """The photos of `splits`; if `held_out`, only those that training leaves out (`stbir.data.holdout`)."""

    shards: str
    splits: tuple[str, ...]
    held_out: bool = False

    @property
    def name(self) -> str:
        """How progress output and manifests name the photos."""
        splits = ",".join(self.splits)
        return f"{HELD_OUT_SHARE:.0%} of {splits}, held out" if self.held_out else splits

    def rows(self) -> Iterator[Row]:
        """The rows with images, one row group in memory at a time."""
        shards = open_shards(self.shards)
        for split in self.splits:
            for row in shards.iter_rows(split):
                if not self.held_out or is_held_out(row["photo_id"]):
                    yield row


def choose_validation(
    shards: Shards, train_splits: Sequence[str], requested: str | None, select: str
) -> Validation | None:
    """The photos to validate on: the `requested` split, or else `val`, or else a held-out share.

    None if `requested` is "none", or if no photo can be held out. Raises InputError for an empty split.
    """
    uri = shards.folder.uri
    if requested == NO_VALIDATION:
        return None
    if requested is not None:
        shards.select_split(requested)
        return Validation(uri, (requested,))
    photos = shards.index.select(["photo_id", "split"]).to_pylist()
    if "val" not in train_splits and any(photo["split"] == "val" for photo in photos):
        return Validation(uri, ("val",))
    held_out = [is_held_out(photo["photo_id"]) for photo in photos if photo["split"] in train_splits]
    is_possible = any(held_out) and not all(held_out)
    return Validation(uri, tuple(train_splits), held_out=True) if is_possible and select == "best" else None


def mean_mrr(results: Mapping[str, Mapping[str, Any]]) -> float | None:
    """The mean reciprocal rank in percent, averaged over the kinds of query that occur; None without any."""
    values = [summary["map"] for summary in results.values() if summary["map"] is not None]
    return sum(values) / len(values) if values else None
