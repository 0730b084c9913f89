"""The vector index of a gallery: which kind for how many photos, what it costs, and how it is built."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from stbir.config.choices import INDEX_THRESHOLD, IndexKind
from stbir.errors import InputError
from stbir.gallery.filters import filterable
from stbir.gallery.rows import VECTOR

# Above, a byte a dimension no longer fits beside a service; RaBitQ keeps a bit (Gao & Long 2024).
_ONE_BIT_ABOVE = 10_000_000
_LEAST_PROBES = 16
_SAMPLES = 256  # vectors a part that k-means learns from
_PARTS_OF_A_GRAPH = 8192  # photos a part where each has a graph of its own
_SCALAR = {"category": "BITMAP", "photo_id": "BTREE"}
Build = Callable[[lance.LanceDataset, "IndexPlan"], None]


@dataclass(frozen=True)
class IndexPlan:
    """An index of `partitions` parts, of which a search looks into `nprobes`."""

    partitions: int
    nprobes: int
    kind: IndexKind = "IVF_SQ"

    def candidates(self, k: int) -> int:
        """How many photos the index names where k are asked for: the coarser its vectors, the more."""
        return 2 * k + 64 if self.kind in ("IVF_SQ", "IVF_HNSW_SQ") else 10 * k + 100

    def wider(self) -> "IndexPlan | None":
        """Twice as many parts looked into; None where all are."""
        if self.nprobes >= self.partitions:
            return None
        return replace(self, nprobes=min(self.partitions, 2 * self.nprobes))

    def bytes(self, rows: int, dim: int) -> int:
        """What the index takes on disk and, while it is searched, in memory."""
        a_row = {"IVF_SQ": dim, "IVF_HNSW_SQ": dim + 240, "IVF_RQ": dim // 8 + 16, "IVF_PQ": dim // 8}
        return rows * (a_row[self.kind] + 8) + 4 * dim * self.partitions

    def building_bytes(self, rows: int, dim: int) -> int:
        """The most memory that building takes, about: what k-means learns from, twice, and the index."""
        learned_from = min(rows, _SAMPLES * self.partitions) * dim * 4
        return 2 * learned_from + self.bytes(rows, dim) + 2**29


def plan_index(rows: int, above: int = INDEX_THRESHOLD, kind: IndexKind | None = None) -> IndexPlan | None:
    """The index worth building for so many photos; None where exact search does.

    `kind`: another one than the size suggests.
    """
    if rows <= above:
        return None
    kind = kind or ("IVF_SQ" if rows <= _ONE_BIT_ABOVE else "IVF_RQ")
    parts = rows // _PARTS_OF_A_GRAPH if kind == "IVF_HNSW_SQ" else min(math.isqrt(rows), rows // 64)
    partitions = max(1, parts)
    return IndexPlan(partitions, min(partitions, _LEAST_PROBES), kind)


def build(dataset: lance.LanceDataset, plan: IndexPlan) -> None:
    """Build it in this process, on all its cores; `dataset` is then the version that has it."""
    dataset.create_index(
        VECTOR,
        plan.kind,
        metric="cosine",
        num_partitions=plan.partitions,
        replace=True,
        **options(plan, dataset),
    )


def vector_index(dataset: lance.LanceDataset) -> str | None:
    """The name of the vector index; None where there is none."""
    return next((i.name for i in dataset.describe_indices() if VECTOR in i.field_names), None)


def options(plan: IndexPlan, dataset: lance.LanceDataset) -> dict[str, Any]:
    """What Lance wants to know of some kinds beside the parts."""
    dim = dataset.schema.field(VECTOR).type.list_size
    if plan.kind == "IVF_PQ":
        return {"num_sub_vectors": max(1, dim // 8)}
    return {"num_bits": 1} if plan.kind == "IVF_RQ" else {}


def build_scalar(dataset: lance.LanceDataset, columns: tuple[str, ...] = ()) -> None:
    """Index what filters ask for: category, photo_id, and the metadata `columns` named.

    Raises InputError for a column that cannot be filtered by.
    """
    types = filterable(dataset.schema)
    for column in columns:
        if column not in types:
            raise InputError(f"index column: there is no {column!r}; there is {', '.join(types)}")
    indexed = {field for index in dataset.describe_indices() for field in index.field_names}
    for column in dict.fromkeys((*_SCALAR, *columns)):
        if column not in indexed:
            dataset.create_scalar_index(column, _SCALAR.get(column) or _scalar_kind(types[column]))


def _scalar_kind(kind: pa.DataType) -> str:
    return "BITMAP" if pa.types.is_boolean(kind) else "BTREE"


def refuse_too_large(plan: IndexPlan, rows: int, dim: int, memory: int | None = None) -> None:
    """Raises InputError where building needs more than `memory` bytes (None: what this machine has left)."""
    needed, there = plan.building_bytes(rows, dim), available_memory() if memory is None else memory
    if needed > there:
        raise InputError(
            f"index: building {plan.kind} over {rows} x {dim} takes about {needed / 2**30:.1f} GiB of memory"
            f" and {there / 2**30:.1f} GiB are free; build on a larger machine, or a smaller kind (IVF_RQ)"
        )


def available_memory() -> int:
    """Bytes that this process could still take, by the kernel's own count and its control group's."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    group = Path("/sys/fs/cgroup")
    try:
        most, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return free  # no such group here
    return free if most == "max" else min(free, int(most) - int(used))
