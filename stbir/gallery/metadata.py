"""What a version of a gallery stores in its schema, so that a rollback restores it: checkpoint and index."""

import json
from dataclasses import asdict, dataclass

import pyarrow as pa

from stbir.config.choices import IndexKind
from stbir.errors import InputError
from stbir.gallery.index import IndexPlan
from stbir.gallery.table import Table
from stbir.storage.manifest import PRODUCERS, known_fields

_METADATA_KEY = "stbir.gallery"


@dataclass(frozen=True)
class Metadata:
    """The metadata of a version. `nprobes`: 0 means no index."""

    checkpoint: str
    nprobes: int = 0
    partitions: int = 0
    kind: IndexKind = "IVF_HNSW_SQ"  # the kind of tables that are older than this field

    @classmethod
    def of(cls, checkpoint: str, plan: IndexPlan | None) -> "Metadata":
        """The metadata of a version with that index; None means exact search."""
        return cls(checkpoint) if plan is None else cls(checkpoint, plan.nprobes, plan.partitions, plan.kind)

    @property
    def plan(self) -> IndexPlan | None:
        """The index of the version; None means exact search."""
        return IndexPlan(self.partitions, self.nprobes, self.kind) if self.nprobes else None


def read_metadata(table: Table) -> Metadata:
    """The metadata of a version. Raises InputError for a table that is not a gallery."""
    metadata = table.schema.metadata or {}
    try:
        return Metadata(**known_fields(Metadata, json.loads(metadata[_METADATA_KEY.encode()])))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(
            f"{table.uri}: not a gallery's table; make one with {PRODUCERS['gallery']}"
        ) from error


def write_metadata(table: Table, metadata: Metadata) -> None:
    """Store the metadata, so that the version can be opened as a gallery."""
    table.update_schema_metadata({_METADATA_KEY: json.dumps(asdict(metadata))})


def is_compatible(table: Table, schema: pa.Schema, checkpoint_digest: str) -> bool:
    """Whether a version has this schema and vectors of this checkpoint."""
    if not table.schema.equals(schema, check_metadata=False):
        return False
    try:
        return read_metadata(table).checkpoint == checkpoint_digest
    except InputError:
        return False
