"""Search engines of `benchmarks/search.py`: stbir on Lance and on Milvus, plain Lance, FAISS. Each is built
once into the task's folder and answers one query at a time."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import lance
import numpy as np
import pyarrow as pa

from stbir.gallery.filters import Condition
from stbir.gallery.gallery import open_gallery, open_table
from stbir.gallery.index import plan_index
from stbir.gallery.local_cache import CacheConfig
from stbir.gallery.publish import prepare, publish
from stbir.gallery.store import open_store
from stbir.gallery.table import PUBLISHED, schema, table_uri
from stbir.storage.folder import Folder

K = 10
_DIGEST = "sha256:benchmark"
_BATCH = 50_000
_ROWS_PER_FILE = 131_072
MILVUS = "ours_on_milvus_lite"
_SERVER = """
import sys
from milvus_lite.adapter.grpc.server import start_server_in_thread
server, database, port = start_server_in_thread(sys.argv[1], "127.0.0.1", 0)
print(port, flush=True)
sys.stdin.read()  # until the benchmark ends
server.stop(grace=1).wait()
database.close()
"""
_SERVERS = ExitStack()  # of this process
# (query, threshold or None) → row numbers of the hits, filtered by `number < threshold`.
Search = Callable[[Any, int | None], Any]


@dataclass(frozen=True)
class Task:
    """Folder of the files, number and size of the vectors, and seconds per measurement."""

    folder: Path
    rows: int
    dim: int
    seconds: float

    def file(self, name: str) -> Path:
        """A file of the task."""
        return self.folder / name

    def photos(self) -> Any:
        """Vectors (N, D), memory-mapped."""
        return np.memmap(self.file("photos.f32"), np.float32, "r", shape=(self.rows, self.dim))


@dataclass(frozen=True)
class Engine:
    """`build` writes files once; `open` returns the search function. `filters`: whether it supports them."""

    build: Callable[[Task], dict[str, Any]]
    open: Callable[[Task], Search]
    filters: bool = False
    index_of: str | None = None  # name of the files, if engines share them


def _build_gallery(task: Task) -> dict[str, Any]:
    """Publish as `embed_gallery` does: table, indexes, recall, tag."""
    folder = Folder(str(task.file("gallery")))
    batches = _batches(task)
    table_schema = schema(task.dim).append(pa.field("number", pa.int64()))
    version = lance.write_dataset(
        batches, table_uri(folder), schema=table_schema, mode="overwrite", max_rows_per_file=_ROWS_PER_FILE
    ).version
    cache = CacheConfig(task.file("cache"))
    plan = plan_index(task.rows, threshold=0)
    candidate = prepare(folder, version, _DIGEST, plan, columns=("number",), cache=cache)
    publish(folder, candidate, {"in": task.rows, "ok": task.rows, "quarantined": 0})
    return {"index": str(candidate.metadata.plan), "recalls": candidate.recalls}


def _build_milvus(task: Task) -> dict[str, Any]:
    """As `_build_gallery`, through the same port."""
    with _milvus_lite(task) as uri:
        folder, table_schema = Folder(uri), schema(task.dim).append(pa.field("number", pa.int64()))
        version = open_store(folder).write(table_schema, _batches(task))
        plan = plan_index(task.rows, threshold=0)
        candidate = prepare(folder, version, _DIGEST, plan, columns=("number",))
        publish(folder, candidate, {"in": task.rows, "ok": task.rows, "quarantined": 0})
    return {"index": str(candidate.metadata.plan), "recalls": candidate.recalls}


def _open_milvus(task: Task) -> Search:
    return _open(_SERVERS.enter_context(_milvus_lite(task)), None)


@contextmanager
def _milvus_lite(task: Task) -> Iterator[str]:
    """The URI of a gallery on a server of its own, which ends with this process at the latest."""
    command = [sys.executable, "-c", _SERVER, str(task.file("milvus"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"milvus://127.0.0.1:{int(server.stdout.readline())}/benchmark"


def _batches(task: Task) -> Iterator[pa.RecordBatch]:
    columns, photo_ND = np.load(task.file("columns.npz")), task.photos()
    table_schema = schema(task.dim).append(pa.field("number", pa.int64()))
    for start in range(0, task.rows, _BATCH):
        part = slice(start, min(start + _BATCH, task.rows))
        count = part.stop - start
        values = {
            "photo_id": pa.array([str(n) for n in range(start, part.stop)]),
            "category": pa.array([f"category {n}" for n in columns["category"][part]]),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(photo_ND[part].ravel()), task.dim),
            "number": pa.array(columns["number"][part]),
        }
        empty = {f.name: pa.array([""] * count).cast(f.type) for f in table_schema if f.name not in values}
        arrays = [{**values, **empty}[field.name] for field in table_schema]
        yield pa.RecordBatch.from_arrays(arrays, schema=table_schema)


def _open_gallery(task: Task) -> Search:
    return _open(str(task.file("gallery")), CacheConfig(task.file("cache")))


def _open(uri: str, cache: CacheConfig | None) -> Search:
    gallery = open_gallery(uri, _DIGEST, cache=cache)

    def search(query_D: Any, threshold: int | None) -> list[int]:
        where = [] if threshold is None else [Condition("number", "lt", threshold)]
        return [int(hit.photo_id) for hit in gallery.search(query_D[None], K, where=where)[0]]

    return search


def _open_lance(task: Task) -> Search:
    """The table and index of stbir, with the query of Lance's introduction."""
    dataset = open_table(Folder(str(task.file("gallery"))), PUBLISHED)

    def search(query_D: Any, threshold: int | None) -> list[int]:
        table = dataset.to_table(
            columns=["photo_id"],
            nearest={"column": "embedding", "q": query_D, "k": K},
            filter=None if threshold is None else f"number < {threshold}",
            prefilter=True,
        )
        return [int(name) for name in table["photo_id"].to_pylist()]

    return search


def _faiss_builder(make: Callable[[int], str], name: str) -> Callable[[Task], dict[str, Any]]:
    def build(task: Task) -> dict[str, Any]:
        index = faiss.index_factory(task.dim, make(task.rows), faiss.METRIC_INNER_PRODUCT)
        photo_ND = task.photos()
        sample = np.random.default_rng(0).choice(task.rows, min(task.rows, 100_000), replace=False)
        index.train(np.ascontiguousarray(photo_ND[np.sort(sample)]))
        for start in range(0, task.rows, _BATCH):
            index.add(np.ascontiguousarray(photo_ND[start : start + _BATCH]))
        faiss.write_index(index, str(task.file(f"{name}.faiss")))
        return {"index": make(task.rows), "bytes": os.path.getsize(task.file(f"{name}.faiss"))}

    return build


def _faiss_opener(name: str, settings: dict[str, float]) -> Callable[[Task], Search]:
    def open(task: Task) -> Search:
        index = faiss.read_index(str(task.file(f"{name}.faiss")))
        for parameter, value in settings.items():
            faiss.ParameterSpace().set_index_parameter(index, parameter, value)
        return lambda query_D, threshold: index.search(query_D[None], K)[1][0]

    return open


def _open_flat(task: Task) -> Search:
    index = faiss.IndexFlatIP(task.dim)
    photo_ND = task.photos()
    for start in range(0, task.rows, _BATCH):
        index.add(np.ascontiguousarray(photo_ND[start : start + _BATCH]))
    return lambda query_D, threshold: index.search(query_D[None], K)[1][0]


def _build_nothing(task: Task) -> dict[str, Any]:
    return {}


def _ivf(rows: int) -> str:
    return f"IVF{max(16, int(rows**0.5))},SQ8"


def _ivf_refined(rows: int) -> str:
    return f"{_ivf(rows)},RFlat"


_IVF, _REFINED, _HNSW = "faiss_ivf_sq8", "faiss_ivf_sq8_refined", "faiss_hnsw_sq8"
ENGINES = {
    "ours": Engine(_build_gallery, _open_gallery, filters=True),
    MILVUS: Engine(_build_milvus, _open_milvus, filters=True),
    "lance": Engine(_build_nothing, _open_lance, filters=True),
    _IVF: Engine(_faiss_builder(_ivf, _IVF), _faiss_opener(_IVF, {"nprobe": 32})),
    # IVF refined by exact scores, with several nprobe.
    **{
        f"{_REFINED}_{nprobe}": Engine(
            _faiss_builder(_ivf_refined, _REFINED),
            _faiss_opener(_REFINED, {"k_factor_rf": 8, "nprobe": nprobe}),
            index_of=_REFINED,
        )
        for nprobe in (4, 8, 16, 32, 64)
    },
    # HNSW graphs rarely leave a cluster: several efSearch.
    **{
        f"{_HNSW}_{depth}": Engine(
            _faiss_builder(lambda rows: "HNSW32_SQ8", _HNSW),
            _faiss_opener(_HNSW, {"efSearch": depth}),
            index_of=_HNSW,
        )
        for depth in (64, 512, 2048)
    },
    "faiss_flat": Engine(_build_nothing, _open_flat),
}
