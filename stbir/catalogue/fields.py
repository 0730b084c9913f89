"""Names and types that the metadata columns of a catalogue can have."""

import pyarrow as pa

from stbir.errors import InputError

# The gallery's own columns, and the score that a search adds.
RESERVED = frozenset({"photo_id", "category", "embedding", "thumbnail", "content", "score"})


def column_type(kind: pa.DataType, location: str) -> pa.DataType:
    """The type in which a column is stored. Raises InputError, naming `location`, for lists, bytes, …"""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_boolean(kind):
        return pa.bool_()
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return pa.float64()
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return pa.timestamp("us", tz=getattr(kind, "tz", None))
    raise InputError(
        f"{location}: {kind} cannot be stored with a photo; make it text, a number or a time, or drop it"
    )


def check_column_name(name: str, location: str) -> None:
    """Raises InputError, naming `location`, for a reserved or empty column name."""
    if name in RESERVED or name.startswith("_") or not name:
        raise InputError(
            f"{location}: a column cannot be named {name!r}; rename it. Reserved are"
            f" {', '.join(sorted(RESERVED))}, and names that begin with an underscore"
        )
