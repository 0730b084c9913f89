"""What `benchmarks/search.py` holds against one another: our gallery, plain Lance, FAISS. Each is built once
into the task's folder and answers one query at a time."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import lance
import numpy as np
import pyarrow as pa

from stbir.gallery.filters import Condition
from stbir.gallery.gallery import PUBLISHED, open_gallery, open_table, schema, table_uri
from stbir.gallery.local_cache import Cache
from stbir.gallery.publish import plan_index, prepare, publish
from stbir.storage.folder import Folder

K = 10
_DIGEST = "sha256:benchmark"
_BATCH = 50_000
_ROWS_A_FILE = 131_072
# Places of the hits of one query, under `number < kept` where that is given.
Ask = Callable[[Any, int | None], Any]


@dataclass(frozen=True)
class Task:
    """Where the files lie, how many vectors of which size there are, and how long a figure may take."""

    folder: Path
    rows: int
    dim: int
    seconds: float

    def file(self, name: str) -> Path:
        """A file of the task."""
        return self.folder / name

    def photos(self) -> Any:
        """(N, D), mapped."""
        return np.memmap(self.file("photos.f32"), np.float32, "r", shape=(self.rows, self.dim))


@dataclass(frozen=True)
class Engine:
    """`build` makes files, once; `open` gives what answers. `filters`: whether it knows them."""

    build: Callable[[Task], dict[str, Any]]
    open: Callable[[Task], Ask]
    filters: bool = False
    of: str | None = None  # what is built, where several engines share it


def _build_ours(task: Task) -> dict[str, Any]:
    """As `embed_gallery` publishes: table, indexes, recall, tag."""
    folder = Folder(str(task.file("gallery")))
    batches = _batches(task)
    wide = schema(task.dim).append(pa.field("number", pa.int64()))
    version = lance.write_dataset(
        batches, table_uri(folder), schema=wide, mode="overwrite", max_rows_per_file=_ROWS_A_FILE
    ).version
    cache = Cache(task.file("cache"))
    plan = plan_index(task.rows, above=0)
    candidate = prepare(folder, version, _DIGEST, plan, columns=("number",), cache=cache)
    publish(folder, candidate, {"in": task.rows, "ok": task.rows, "quarantined": 0})
    return {"index": str(candidate.plan), "recalls": candidate.recalls}


def _batches(task: Task) -> Iterator[pa.RecordBatch]:
    columns, photo_ND = np.load(task.file("columns.npz")), task.photos()
    wide = schema(task.dim).append(pa.field("number", pa.int64()))
    for start in range(0, task.rows, _BATCH):
        place = slice(start, min(start + _BATCH, task.rows))
        count = place.stop - start
        values = {
            "photo_id": pa.array([str(n) for n in range(start, place.stop)]),
            "category": pa.array([f"category {n}" for n in columns["category"][place]]),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(photo_ND[place].ravel()), task.dim),
            "number": pa.array(columns["number"][place]),
        }
        empty = {f.name: pa.array([""] * count).cast(f.type) for f in wide if f.name not in values}
        arrays = [{**values, **empty}[field.name] for field in wide]
        yield pa.RecordBatch.from_arrays(arrays, schema=wide)


def _open_ours(task: Task) -> Ask:
    gallery = open_gallery(str(task.file("gallery")), _DIGEST, cache=Cache(task.file("cache")))

    def ask(query_D: Any, kept: int | None) -> list[int]:
        where = [] if kept is None else [Condition("number", "lt", kept)]
        return [int(hit.photo_id) for hit in gallery.search(query_D[None], K, where=where)[0]]

    return ask


def _open_lance(task: Task) -> Ask:
    """The table and index that ours built, asked as Lance's introduction asks."""
    dataset = open_table(Folder(str(task.file("gallery"))), PUBLISHED)

    def ask(query_D: Any, kept: int | None) -> list[int]:
        found = dataset.to_table(
            columns=["photo_id"],
            nearest={"column": "embedding", "q": query_D, "k": K},
            filter=None if kept is None else f"number < {kept}",
            prefilter=True,
        )
        return [int(name) for name in found["photo_id"].to_pylist()]

    return ask


def _faiss_builder(make: Callable[[int], str], name: str) -> Callable[[Task], dict[str, Any]]:
    def build(task: Task) -> dict[str, Any]:
        index = faiss.index_factory(task.dim, make(task.rows), faiss.METRIC_INNER_PRODUCT)
        photo_ND = task.photos()
        learned = np.random.default_rng(0).choice(task.rows, min(task.rows, 100_000), replace=False)
        index.train(np.ascontiguousarray(photo_ND[np.sort(learned)]))
        for start in range(0, task.rows, _BATCH):
            index.add(np.ascontiguousarray(photo_ND[start : start + _BATCH]))
        faiss.write_index(index, str(task.file(f"{name}.faiss")))
        return {"index": make(task.rows), "bytes": os.path.getsize(task.file(f"{name}.faiss"))}

    return build


def _faiss_opener(name: str, settings: dict[str, float]) -> Callable[[Task], Ask]:
    def open(task: Task) -> Ask:
        index = faiss.read_index(str(task.file(f"{name}.faiss")))
        for knob, value in settings.items():
            faiss.ParameterSpace().set_index_parameter(index, knob, value)
        return lambda query_D, kept: index.search(query_D[None], K)[1][0]

    return open


def _open_flat(task: Task) -> Ask:
    index = faiss.IndexFlatIP(task.dim)
    photo_ND = task.photos()
    for start in range(0, task.rows, _BATCH):
        index.add(np.ascontiguousarray(photo_ND[start : start + _BATCH]))
    return lambda query_D, kept: index.search(query_D[None], K)[1][0]


def _nothing(task: Task) -> dict[str, Any]:
    return {}


def _ivf(rows: int) -> str:
    return f"IVF{max(16, int(rows**0.5))},SQ8"


def _ivf_refined(rows: int) -> str:
    return f"{_ivf(rows)},RFlat"


_IVF, _REFINED, _HNSW = "faiss_ivf_sq8", "faiss_ivf_sq8_refined", "faiss_hnsw_sq8"
ENGINES = {
    "ours": Engine(_build_ours, _open_ours, filters=True),
    "lance": Engine(_nothing, _open_lance, filters=True),
    _IVF: Engine(_faiss_builder(_ivf, _IVF), _faiss_opener(_IVF, {"nprobe": 32})),
    # With exact scores behind it, as ours; the same index looked into less and more.
    **{
        f"{_REFINED}_{nprobe}": Engine(
            _faiss_builder(_ivf_refined, _REFINED),
            _faiss_opener(_REFINED, {"k_factor_rf": 8, "nprobe": nprobe}),
            of=_REFINED,
        )
        for nprobe in (4, 8, 16, 32, 64)
    },
    # On clusters its graph is hard to leave by: looked into little, much, and very much.
    **{
        f"{_HNSW}_{depth}": Engine(
            _faiss_builder(lambda rows: "HNSW32_SQ8", _HNSW),
            _faiss_opener(_HNSW, {"efSearch": depth}),
            of=_HNSW,
        )
        for depth in (64, 512, 2048)
    },
    "faiss_flat": Engine(_nothing, _open_flat),
}
