"""Compares search in a published gallery, in Lance and in Milvus, with FAISS and plain Lance.

`python benchmarks/search.py --rows 1000000 --dim 512 [--keep FOLDER]` makes clustered vectors and publishes
them as `embed_gallery` does. The queries are unseen photos and noisy copies. `--keep` stores the files, so a
later run only measures. Each engine runs in its own process, one after the other. The last line is JSON:
`recall_at_10`, `p50_ms`, `p99_ms` of one client without filter, and `vs_faiss_ivf`, the median over that of
FAISS IVF at equal or better recall (below 1 is faster). With `--sizes`, it has these by size, and
`p50_exponent`: p50 grows as rows to that power.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import latency
from benchmarks.clustered import ClusteredVectors, noisy_copies
from benchmarks.engines import ENGINES, MILVUS, K, Task
from ray_jobs.cli import run

FILTER_SHARES = (0.5, 0.01, 0.0001)
_QUERY_COSINE = 0.6  # of a noisy copy with its photo
_CHUNK_ROWS = 65_536


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Make, build, measure, compare; at each size if there are several."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(args.keep or scratch)
        if not args.sizes:
            return _compare(args, folder, args.rows)
        results = [_compare(args, folder / str(rows), rows) for rows in args.sizes]
    return {"sizes": results, "p50_exponent": {name: _p50_exponent(results, name) for name in args.engines}}


def _compare(args: argparse.Namespace, folder: Path, rows: int) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    task = Task(folder, rows, args.dim, args.seconds)
    _make_vectors(task, args.queries)
    results: dict[str, Any] = {}
    for phase in (latency.build, latency.measure):
        for name in args.engines:
            results.setdefault(name, {}).update(_run_in_subprocess(phase, task, name))
            print(f"{phase.__name__} {name}: {json.dumps(results[name])}", file=sys.stderr, flush=True)
    return {"rows": rows, "dim": args.dim, **_summary(results), "engines": results}


def _p50_exponent(results: list[dict[str, Any]], name: str) -> float:
    """The slope of log p50 over log rows: 0 does not grow, 1 grows as the rows."""
    p50_ms = [each["engines"][name]["unfiltered"]["p50_ms"] for each in results]
    return round(float(np.polyfit(np.log([each["rows"] for each in results]), np.log(p50_ms), 1)[0]), 2)


def _summary(results: dict[str, Any]) -> dict[str, Any]:
    """Relative to FAISS at equal recall: its first setting with that recall, else the one with the best."""
    stbir = results.get("ours", {}).get("unfiltered", {})
    settings = [each["unfiltered"] for name, each in results.items() if name.startswith("faiss_ivf")]
    equal = [each for each in settings if stbir and each["recall_at_10"] >= stbir["recall_at_10"]]
    faiss = (equal or sorted(settings, key=lambda each: -each["recall_at_10"]) or [None])[0]
    return {
        **{name: stbir.get(name) for name in ("recall_at_10", "p50_ms", "p99_ms")},
        "vs_faiss_ivf": round(stbir["p50_ms"] / faiss["p50_ms"], 2) if stbir and faiss else None,
        "faiss_ivf_recall_at_10": faiss and faiss["recall_at_10"],
    }


def _run_in_subprocess(phase: Callable[..., dict[str, Any]], task: Task, name: str) -> dict[str, Any]:
    """Run a phase in a new process, so that memory is measured separately."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(phase, (task, name))


def _make_vectors(task: Task, queries: int) -> None:
    """Write photos, queries and their exact hits, with and without filters."""
    if task.file("answers.npz").exists():
        return
    vectors = ClusteredVectors(task.rows, task.dim)
    photo_ND, category_N = vectors.photos(task.rows, seed=1)
    unseen_QD, _ = vectors.photos(queries // 2, seed=2)
    noisy = np.random.default_rng(3).integers(task.rows, size=queries - len(unseen_QD))
    query_QD = np.concatenate([unseen_QD, noisy_copies(photo_ND[noisy], _QUERY_COSINE, seed=4)])
    # A column for filters: `number < share * rows` keeps exactly that share.
    number_N = np.random.default_rng(5).permutation(task.rows)
    answers = {"all": _exact(photo_ND, query_QD, None)}
    for share in FILTER_SHARES:
        answers[str(share)] = _exact(photo_ND, query_QD, number_N < share * task.rows)
    photo_ND.tofile(task.file("photos.f32"))
    np.savez(task.file("columns.npz"), category=category_N, number=number_N)
    np.save(task.file("queries.npy"), query_QD)
    np.savez(task.file("answers.npz"), **answers)


def _exact(photo_ND: Any, query_QD: Any, mask_N: Any) -> Any:
    """Row numbers of the K nearest photos, (Q, K), by exact scores."""
    best, scores = np.empty((len(query_QD), 0), np.int64), np.empty((len(query_QD), 0), np.float32)
    for start in range(0, len(photo_ND), _CHUNK_ROWS):
        part = query_QD @ photo_ND[start : start + _CHUNK_ROWS].T
        if mask_N is not None:
            part[:, ~mask_N[start : start + _CHUNK_ROWS]] = -2
        rows = np.broadcast_to(np.arange(start, start + part.shape[1]), part.shape)
        scores, best = np.concatenate([scores, part], 1), np.concatenate([best, rows], 1)
        order = np.argpartition(-scores, K - 1, axis=1)[:, :K]
        scores, best = np.take_along_axis(scores, order, 1), np.take_along_axis(best, order, 1)
    return best


def _sizes(text: str) -> list[int]:
    return [int(rows) for rows in text.split(",")]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("benchmarks/search.py", description=(__doc__ or "").split(".")[0])
    add = parser.add_argument
    add("--rows", type=int, default=1_000_000)
    add("--sizes", type=_sizes, metavar="ROWS,ROWS,…", help="measure at each, and how p50 grows")
    add("--dim", type=int, default=512)
    add("--queries", type=int, default=400)
    add("--seconds", type=float, default=8, help="limit per measurement (%(default)s)")
    add("--keep", metavar="FOLDER", help="folder to build in and to reuse")
    # milvus-lite, by name only: it builds slowly.
    default = [name for name in ENGINES if name != MILVUS]
    add("--engines", nargs="+", default=default, choices=list(ENGINES))
    return parser


if __name__ == "__main__":
    run(main, parser())
