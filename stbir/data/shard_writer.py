"""SHARDS as they are written: Parquet files of bounded size, then quarantine, then the manifest.

Files are named by their content. So a new version never overwrites a file of the one before, which stays
readable until the new manifest stands; and the same pictures give the same names and the same digest.
"""

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stbir.data.schema import QUARANTINE_SCHEMA, SHARD_SCHEMA, Row
from stbir.data.validation import Fault
from stbir.storage.folder import Folder
from stbir.storage.manifest import NAME, Manifest, combined_digest, read_manifest, write_manifest

QUARANTINE = "quarantine.parquet"
ROW_GROUP = 64
MAX_FILE_BYTES = 128 * 2**20
_OURS = re.compile(r"data/\d{5}-\d+-[0-9a-f]{12}\.parquet")


@dataclass
class Written:
    """What became of a part of the entries, known by its number: files, faults, counts by split."""

    number: int
    hashes: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    photos: Counter[str] = field(default_factory=Counter)
    sketches: Counter[str] = field(default_factory=Counter)

    def add_file(self, folder: Folder, rows: list[Row]) -> None:
        """Write rows as one Parquet file into the folder."""
        data = _parquet(rows)
        sha = hashlib.sha256(data).hexdigest()
        name = f"data/{self.number:05d}-{len(self.hashes)}-{sha[:12]}.parquet"
        folder.write(name, data)
        self.hashes[name] = sha
        for row in rows:
            self.photos[row["split"]] += 1
            self.sketches[row["split"]] += row["sketch_count"]


def write_rows(folder: Folder, number: int, rows: Iterable[Row], max_bytes: int = MAX_FILE_BYTES) -> Written:
    """Write the rows of part `number`, in order, into files of about `max_bytes` at most."""
    written = Written(number)
    for batch in _batches(rows, max_bytes):
        written.add_file(folder, batch)
    return written


def _batches(rows: Iterable[Row], max_bytes: int) -> Iterator[list[Row]]:
    batch: list[Row] = []
    held = 0
    for row in rows:
        size = len(row["photo"]) + sum(map(len, row["sketches"]))
        if batch and held + size > max_bytes:
            yield batch
            batch, held = [], 0
        batch.append(row)
        held += size
    if batch:
        yield batch


def _parquet(rows: list[Row]) -> bytes:
    """Row groups are small, so that a reader can take a part; pictures are compressed already."""
    buffer = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist(rows, schema=SHARD_SCHEMA),
        buffer,
        row_group_size=ROW_GROUP,
        compression="NONE",
        use_dictionary=["category", "class", "split", "text_source"],
        write_statistics=["photo_id", "category", "split", "sketch_count"],
    )
    return buffer.getvalue()


def write_quarantine(folder: Folder, faults: list[Fault], name: str = QUARANTINE) -> None:
    """Write the quarantine, also where it is empty: no file of an earlier run is left to mislead."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(f) for f in faults], schema=QUARANTINE_SCHEMA), buffer)
    folder.write(name, buffer.getvalue())


def publish(
    folder: Folder,
    parts: list[Written],
    counts: dict[str, int],
    details: dict[str, Any],
    made_from: str = "",
) -> Manifest:
    """Write the manifest over the files of all parts, then remove what it does not list."""
    hashes = {
        name: sha for part in sorted(parts, key=lambda p: p.number) for name, sha in part.hashes.items()
    }
    manifest = Manifest(
        kind="shards",
        digest=combined_digest(hashes),
        counts=counts,
        made_from=made_from,
        details={**details, "files": list(hashes), "quarantine": QUARANTINE},
    )
    write_manifest(folder, manifest)
    remove_unlisted(folder)
    return manifest


def remove_unlisted(folder: Folder) -> None:
    """Remove the files that runs before, or a run that was refused, left without a manifest."""
    listed = set(read_manifest(folder, "shards").detail("files")) if folder.exists(NAME) else set()
    for name in folder.names("data/*.parquet"):
        if _OURS.fullmatch(name) and name not in listed:
            folder.remove(name)
