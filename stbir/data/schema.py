"""Schema of the shards: one Parquet row is one photo, its sketches and its caption."""

from typing import NotRequired, TypedDict

import pyarrow as pa

SHARD_SCHEMA = pa.schema(
    [
        pa.field("photo_id", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("class", pa.string()),
        pa.field("split", pa.string(), nullable=False),
        pa.field("photo", pa.binary(), nullable=False),
        pa.field("sketches", pa.list_(pa.binary()), nullable=False),
        pa.field("text", pa.string()),
        pa.field("text_source", pa.string()),
        # Number of sketches, so that an index of samples reads no image column.
        pa.field("sketch_count", pa.int32(), nullable=False),
    ]
)

# An optional column of shards: the strokes of each sketch (`data.strokes`), null if they are not known.
STROKES_FIELD = pa.field("strokes", pa.list_(pa.binary()))

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("photo_id", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("file", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("content", pa.string()),
    ]
)

# The functional form, because `class` is a Python keyword.
Row = TypedDict(
    "Row",
    {
        "photo_id": str,
        "category": str,
        "class": NotRequired[str | None],
        "split": str,
        "photo": bytes,
        "sketches": list[bytes],
        "text": str | None,
        "text_source": NotRequired[str | None],
        "sketch_count": int,
        "strokes": NotRequired[list[bytes | None] | None],
    },
)
