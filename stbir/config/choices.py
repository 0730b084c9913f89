"""The values that options offer and their defaults, apart from the code behind them.

A command line is parsed before that code is imported, as Lance, torch and Ray take seconds to load.
"""

from typing import Literal, get_args

from stbir.errors import InputError

Backend = Literal["auto", "torch", "openvino", "onnxruntime"]
CatalogueKind = Literal["folder", "table", "webdataset"]
ExportFormat = Literal["parquet", "npy"]
# Of Lance tables; Milvus has IVF_FLAT alone.
IndexKind = Literal["IVF_SQ", "IVF_RQ", "IVF_HNSW_SQ", "IVF_PQ", "IVF_FLAT"]
PreflightJob = Literal["train", "embed", "serve"]
Profiler = Literal["torch", "py-spy"]
Protocol = Literal["per-sketch", "per-photo"]
Requirement = Literal["sketch,text", "text", "sketch", "photo"]
Select = Literal["best", "last"]
SourceKind = Literal["table", "folder", "manifest", "qmul", "sketchy", "synthetic"]

BACKENDS: tuple[Backend, ...] = get_args(Backend)
CATALOGUE_KINDS: tuple[CatalogueKind, ...] = get_args(CatalogueKind)
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
INDEX_KINDS: tuple[IndexKind, ...] = get_args(IndexKind)[:-1]
PREFLIGHT_JOBS: tuple[PreflightJob, ...] = get_args(PreflightJob)
PROFILERS: tuple[Profiler, ...] = get_args(Profiler)
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
REQUIREMENTS: tuple[Requirement, ...] = get_args(Requirement)
SELECTIONS: tuple[Select, ...] = get_args(Select)
SOURCE_KINDS: tuple[SourceKind, ...] = get_args(SourceKind)

# Replaces auto in commands and the endpoint, which pass it on: the library reads no environment.
BACKEND_ENV = "STBIR_BACKEND"

# Below this many photos an exact search takes a few milliseconds in some hundred MB, and an index would only
# cost recall. Measured: 200k x 512 on 2 cores, 37 ms for one query.
INDEX_THRESHOLD = 100_000

# Of what a hit should not show, against 1 for the query. Measured: docs/experiments.md, 2026-12-01.
NEGATIVE_WEIGHT = 0.5


def parse_backend(name: str) -> Backend:
    """The backend of that name. Raises InputError for another name, which STBIR_BACKEND has."""
    for backend in BACKENDS:
        if name == backend:
            return backend
    raise InputError(f"{BACKEND_ENV}: no backend {name!r}; use one of {', '.join(BACKENDS)}")
