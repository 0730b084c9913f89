"""Where the photos of a gallery came from, stored in the schema of each version."""

from stbir.gallery.table import Table

_KEY = "stbir.photos"


def read_origin(table: Table) -> str:
    """Where the photos of a version came from; empty if unknown."""
    value: bytes = (table.schema.metadata or {}).get(_KEY.encode(), b"")
    return value.decode()


def write_origin(table: Table, origin: str) -> None:
    """Store where the photos come from, in a new version, unless it is stored already."""
    if read_origin(table) != origin:
        table.update_schema_metadata({_KEY: origin})
