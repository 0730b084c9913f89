"""Where the photos of a gallery came from, stored in the schema of each version."""

import lance

_KEY = "stbir.photos"


def read_origin(dataset: lance.LanceDataset) -> str:
    """Where the photos of a version came from; empty if unknown."""
    value: bytes = (dataset.schema.metadata or {}).get(_KEY.encode(), b"")
    return value.decode()


def write_origin(dataset: lance.LanceDataset, origin: str) -> None:
    """Store where the photos come from, in a new version, unless it is stored already."""
    if read_origin(dataset) != origin:
        dataset.update_schema_metadata({_KEY: origin})
