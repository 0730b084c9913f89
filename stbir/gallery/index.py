"""The vector index of a gallery: its kind, its size, and how it is built."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from stbir.config.choices import INDEX_THRESHOLD, IndexKind
from stbir.errors import InputError
from stbir.gallery.filters import filterable_columns
from stbir.gallery.table import VECTOR, dimension

# Above this, one byte a dimension no longer fits in memory; RaBitQ needs one bit (Gao & Long 2024).
_RABITQ_THRESHOLD = 10_000_000
_DEFAULT_NPROBES = 16
SAMPLE_RATE = 256  # vectors a partition that k-means trains on
_HNSW_PARTITION_ROWS = 8192
MIN_CANDIDATES_PER_HIT = 2  # that match a filter; else a search takes more partitions
_SCALAR_INDEX_TYPES = {"category": "BITMAP", "photo_id": "BTREE"}
IndexBuilder = Callable[[lance.LanceDataset, "IndexPlan"], None]


@dataclass(frozen=True)
class IndexPlan:
    """An IVF index of `partitions` parts; a search probes `nprobes` of them."""

    partitions: int
    nprobes: int
    kind: IndexKind = "IVF_SQ"

    def num_candidates(self, k: int) -> int:
        """How many candidates to rerank for k hits: coarser quantisation needs more."""
        return 2 * k + 64 if self.kind in ("IVF_SQ", "IVF_HNSW_SQ") else 10 * k + 100

    def num_probes(self, share: float) -> int:
        """How many partitions to search if this share of the rows matches a filter."""
        return int(self.nprobes / share**0.5)

    def double_nprobes(self) -> "IndexPlan | None":
        """The plan with twice as many probes; None if it probes every partition already."""
        if self.nprobes >= self.partitions:
            return None
        return replace(self, nprobes=min(self.partitions, 2 * self.nprobes))

    def size_bytes(self, num_rows: int, dim: int) -> int:
        """The size of the index on disk, and in memory during a search."""
        row_bytes = {"IVF_SQ": dim, "IVF_HNSW_SQ": dim + 240, "IVF_RQ": dim // 8 + 16, "IVF_PQ": dim // 8}
        row_bytes["IVF_FLAT"] = 4 * dim
        return num_rows * (row_bytes[self.kind] + 8) + 4 * dim * self.partitions

    def build_memory_bytes(self, num_rows: int, dim: int) -> int:
        """About the peak memory of a build: twice the k-means sample, and the index."""
        sample_bytes = min(num_rows, SAMPLE_RATE * self.partitions) * dim * 4
        return 2 * sample_bytes + self.size_bytes(num_rows, dim) + 2**29


@dataclass(frozen=True)
class BuiltIndex:
    """`plan`: of the index that a version has; None means exact search. `is_reused`: it existed before."""

    plan: IndexPlan | None
    is_reused: bool = False


def plan_index(
    num_rows: int, threshold: int = INDEX_THRESHOLD, kind: IndexKind | None = None
) -> IndexPlan | None:
    """The index for a gallery of this size; None means exact search. `kind` overrides the default kind."""
    if num_rows <= threshold:
        return None
    kind = kind or ("IVF_SQ" if num_rows <= _RABITQ_THRESHOLD else "IVF_RQ")
    is_hnsw = kind == "IVF_HNSW_SQ"
    partitions = num_rows // _HNSW_PARTITION_ROWS if is_hnsw else min(math.isqrt(num_rows), num_rows // 64)
    partitions = max(1, partitions)
    return IndexPlan(partitions, min(partitions, _DEFAULT_NPROBES), kind)


def build_index(dataset: lance.LanceDataset, plan: IndexPlan) -> None:
    """Build the index in this process, on all cores, and move `dataset` to the version that has it."""
    dataset.create_index(
        VECTOR,
        plan.kind,
        metric="cosine",
        num_partitions=plan.partitions,
        replace=True,
        **index_options(plan, dataset),
    )


def vector_index_name(dataset: lance.LanceDataset) -> str | None:
    """The name of the vector index; None if there is none."""
    return next((index.name for index in dataset.describe_indices() if VECTOR in index.field_names), None)


def count_unindexed_rows(dataset: lance.LanceDataset) -> int:
    """The rows that the vector index does not cover; each search scans them. 0 without an index."""
    [*segments] = (
        segment
        for index in dataset.describe_indices()
        if VECTOR in index.field_names
        for segment in index.segments
    )
    covered = set().union(*(segment.fragment_ids for segment in segments))
    fragments = dataset.get_fragments() if segments else []
    return sum(each.count_rows() for each in fragments if each.fragment_id not in covered)


def index_options(plan: IndexPlan, dataset: lance.LanceDataset) -> dict[str, Any]:
    """The options of Lance that depend on the kind of index."""
    dim = dimension(dataset.schema)
    if plan.kind == "IVF_PQ":
        return {"num_sub_vectors": max(1, dim // 8)}
    return {"num_bits": 1} if plan.kind == "IVF_RQ" else {}


def build_scalar_indexes(dataset: lance.LanceDataset, columns: tuple[str, ...] = ()) -> None:
    """Build the missing scalar indexes for filters: on category, photo_id and the given metadata columns.

    Raises InputError for a column that does not exist or that filters cannot use.
    """
    types = filterable_columns(dataset.schema)
    check_index_columns(dataset.schema, columns)
    indexed = {field for index in dataset.describe_indices() for field in index.field_names}
    for column in dict.fromkeys((*_SCALAR_INDEX_TYPES, *columns)):
        if column not in indexed:
            default = "BITMAP" if pa.types.is_boolean(types[column]) else "BTREE"
            dataset.create_scalar_index(column, _SCALAR_INDEX_TYPES.get(column, default))


def check_index_columns(schema: pa.Schema, columns: tuple[str, ...]) -> None:
    """Raises InputError for a column that does not exist or that filters cannot use."""
    types = filterable_columns(schema)
    for column in columns:
        if column not in types:
            raise InputError(f"index column: no column {column!r}; available: {', '.join(types)}")


def check_build_memory(plan: IndexPlan, num_rows: int, dim: int, memory_bytes: int | None = None) -> None:
    """Raises InputError if a build exceeds `memory_bytes`; None means the free memory of this machine."""
    needed = plan.build_memory_bytes(num_rows, dim)
    available = available_memory_bytes() if memory_bytes is None else memory_bytes
    if needed > available:
        raise InputError(
            f"index: building {plan.kind} over {num_rows} x {dim} takes about {needed / 2**30:.1f} GiB of"
            f" memory, {available / 2**30:.1f} GiB are free; use a larger machine or a smaller kind (IVF_RQ)"
        )


def available_memory_bytes() -> int:
    """The memory that this process can still allocate: the lesser of the kernel's and the cgroup's limit."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    cgroup = Path("/sys/fs/cgroup")
    try:
        limit, used = ((cgroup / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return free  # no cgroup v2 limit
    return free if limit == "max" else min(free, int(limit) - int(used))
