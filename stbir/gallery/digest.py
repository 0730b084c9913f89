"""The digest of a gallery's rows: ids and vectors in table order, whatever the layout of the files."""

import hashlib

import pyarrow as pa

from stbir.gallery.rows import extract_vectors
from stbir.gallery.table import VECTOR, Table


class RowsDigest:
    """The digest of the rows that `add` receives, and of `checkpoint`, the digest of what embedded them."""

    def __init__(self, checkpoint: str = "") -> None:
        self._ids, self._vectors, self._checkpoint = hashlib.sha256(), hashlib.sha256(), checkpoint

    def add(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Add the next rows, which have a `photo_id` and a vector."""
        self._ids.update("".join(f"{photo_id}\0" for photo_id in rows["photo_id"].to_pylist()).encode())
        self._vectors.update(extract_vectors(rows).tobytes())

    def __str__(self) -> str:
        total = self._ids.digest() + self._vectors.digest() + self._checkpoint.encode()
        return f"sha256:{hashlib.sha256(total).hexdigest()}"


def rows_digest(table: Table) -> str:
    """The digest of a version's rows, without its checkpoint."""
    digest = RowsDigest()
    for batch in table.to_batches(columns=["photo_id", VECTOR]):
        digest.add(batch)
    return str(digest)
