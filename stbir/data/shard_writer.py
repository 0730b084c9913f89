"""Writing shards: Parquet files of bounded size, then the quarantine, then the manifest.

File names contain a hash of the content. A new version therefore never overwrites a file of the previous
version, which stays readable until the new manifest is written. Equal rows give an equal digest.
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

from stbir.data.schema import QUARANTINE_SCHEMA, SHARD_SCHEMA, STROKES_FIELD, Row
from stbir.data.validation import Fault
from stbir.storage.folder import Folder
from stbir.storage.manifest import MANIFEST_FILE, Manifest, combine_digests, read_manifest, write_manifest

QUARANTINE = "quarantine.parquet"
ROW_GROUP_SIZE = 64
MAX_FILE_BYTES = 128 * 2**20
_FILE_NAME = re.compile(r"data/\d{5}-\d+-[0-9a-f]{12}\.parquet")


@dataclass
class ShardPart:
    """The files written for part `number` of the entries: hashes, sizes in bytes, faults, counts by split."""

    number: int
    hashes: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    photos: Counter[str] = field(default_factory=Counter)
    sketches: Counter[str] = field(default_factory=Counter)
    strokes: int = 0  # sketches with strokes

    def add_file(self, folder: Folder, rows: list[Row]) -> None:
        """Write rows as one Parquet file."""
        data = _parquet_bytes(rows)
        sha = hashlib.sha256(data).hexdigest()
        name = f"data/{self.number:05d}-{len(self.hashes)}-{sha[:12]}.parquet"
        folder.write(name, data)
        self.hashes[name], self.sizes[name] = sha, len(data)
        for row in rows:
            self.photos[row["split"]] += 1
            self.sketches[row["split"]] += row["sketch_count"]
            self.strokes += len(known_strokes(row))


def known_strokes(row: Row) -> list[bytes]:
    """The strokes of the sketches that have some."""
    return [strokes for strokes in row.get("strokes") or () if strokes is not None]


def write_rows(
    folder: Folder, number: int, rows: Iterable[Row], max_bytes: int = MAX_FILE_BYTES
) -> ShardPart:
    """Write the rows of part `number`, in order, into files with at most `max_bytes` of images."""
    part = ShardPart(number)
    for batch in _batches(rows, max_bytes):
        part.add_file(folder, batch)
    return part


def _batches(rows: Iterable[Row], max_bytes: int) -> Iterator[list[Row]]:
    """A row larger than `max_bytes` is a batch of its own."""
    batch: list[Row] = []
    batch_bytes = 0
    for row in rows:
        row_bytes = len(row["photo"]) + sum(map(len, row["sketches"])) + sum(map(len, known_strokes(row)))
        if batch and batch_bytes + row_bytes > max_bytes:
            yield batch
            batch, batch_bytes = [], 0
        batch.append(row)
        batch_bytes += row_bytes
    if batch:
        yield batch


def _parquet_bytes(rows: list[Row]) -> bytes:
    """Small row groups let a reader take a part. Images are compressed already.

    A file without any strokes has no column of them, so it is the same as without this column in the schema.
    """
    schema = SHARD_SCHEMA.append(STROKES_FIELD) if any(map(known_strokes, rows)) else SHARD_SCHEMA
    buffer = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist(rows, schema=schema),
        buffer,
        row_group_size=ROW_GROUP_SIZE,
        compression="NONE",
        use_dictionary=["category", "class", "split", "text_source"],
        write_statistics=["photo_id", "category", "split", "sketch_count"],
    )
    return buffer.getvalue()


def count_strokes(parts: Iterable[ShardPart]) -> dict[str, int]:
    """The entry of the counts of shards for the sketches with strokes; none if there are no such sketches."""
    count = sum(part.strokes for part in parts)
    return {"strokes": count} if count else {}


def write_quarantine(folder: Folder, faults: list[Fault], name: str = QUARANTINE) -> None:
    """Write the quarantine. An empty one replaces the file of an earlier run."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(f) for f in faults], schema=QUARANTINE_SCHEMA), buffer)
    folder.write(name, buffer.getvalue())


def publish(
    folder: Folder,
    parts: list[ShardPart],
    counts: dict[str, int],
    details: dict[str, Any],
    made_from: str = "",
) -> Manifest:
    """Write the manifest of all parts, then remove files that it does not list.

    Raises InputError if a file of a part is missing or has another size.
    """
    hashes = {
        name: sha for part in sorted(parts, key=lambda p: p.number) for name, sha in part.hashes.items()
    }
    manifest = Manifest(
        kind="shards",
        digest=combine_digests(hashes),
        counts=counts,
        made_from=made_from,
        details={**details, "files": list(hashes), "quarantine": QUARANTINE},
    )
    write_manifest(folder, manifest, {name: size for part in parts for name, size in part.sizes.items()})
    remove_unlisted_files(folder)
    return manifest


def remove_unlisted_files(folder: Folder) -> None:
    """Remove shard files of earlier or failed runs that the manifest does not list."""
    listed = set(read_manifest(folder, "shards").detail("files")) if folder.exists(MANIFEST_FILE) else set()
    for name in folder.list_files("data/*.parquet"):
        if _FILE_NAME.fullmatch(name) and name not in listed:
            folder.remove(name)
