"""The metadata columns of a catalogue: which names and types they may have."""

import pyarrow as pa

from stbir.errors import InputError

# The gallery's own columns, and what a search adds to a row.
RESERVED = frozenset({"photo_id", "category", "embedding", "thumbnail", "content", "score"})


def simple_type(kind: pa.DataType, where: str) -> pa.DataType:
    """The type a column is kept in. Raises InputError, naming `where`, for lists, structures, bytes, …"""
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
        f"{where}: {kind} cannot be kept beside a photo; make it text, a number or a time, or drop it"
    )


def check_name(name: str, where: str) -> None:
    """Raises InputError for a column that would stand in for one of the gallery's own."""
    if name in RESERVED or name.startswith("_") or not name:
        raise InputError(
            f"{where}: a column cannot be called {name!r}; rename it. The gallery keeps for itself"
            f" {', '.join(sorted(RESERVED))} and what begins with an underscore"
        )
