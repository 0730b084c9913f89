"""Search through a published gallery of many vectors, beside FAISS and plain Lance in the same run.

`python benchmarks/search.py --rows 1000000 --dim 512 [--keep FOLDER]` makes clustered vectors, publishes them
as `embed_gallery` does, and asks for photos that are not among them and for noisy ones that are. `--keep`
holds what was built, so that a later run measures alone. Each engine builds and answers in a process of its
own, one after the other.
The last line is JSON: `recall_at_10`, `p50_ms`, `p99_ms` of one client without filter, `vs_faiss_ivf` (our
median against that of FAISS's IVF at no less recall than ours; below 1 is faster).
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
from benchmarks.clustered import World, drawn
from benchmarks.engines import ENGINES, K, Task
from ray_jobs.cli import run

KEPT_SHARES = (0.5, 0.01, 0.0001)
_COSINE = 0.6  # of a drawn query with the photo it is of
_SCORED = 65_536


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Make, build, measure, compare."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(args.keep or made)
        folder.mkdir(parents=True, exist_ok=True)
        task = Task(folder, args.rows, args.dim, args.seconds)
        _vectors(task, args.queries)
        found: dict[str, Any] = {}
        for phase in (latency.build, latency.measure):
            for name in args.engines:
                found.setdefault(name, {}).update(_apart(phase, task, name))
                print(f"{phase.__name__} {name}: {json.dumps(found[name])}", file=sys.stderr, flush=True)
    return {"rows": args.rows, "dim": args.dim, **_headline(found), "engines": found}


def _headline(found: dict[str, Any]) -> dict[str, Any]:
    """Against FAISS at equal recall: its first setting that finds as much, else the one that finds most."""
    ours = found.get("ours", {}).get("unfiltered", {})
    settings = [each["unfiltered"] for name, each in found.items() if name.startswith("faiss_ivf")]
    equal = [each for each in settings if ours and each["recall_at_10"] >= ours["recall_at_10"]]
    faiss = (equal or sorted(settings, key=lambda each: -each["recall_at_10"]) or [None])[0]
    return {
        **{name: ours.get(name) for name in ("recall_at_10", "p50_ms", "p99_ms")},
        "vs_faiss_ivf": round(ours["p50_ms"] / faiss["p50_ms"], 2) if ours and faiss else None,
        "faiss_ivf_recall_at_10": faiss and faiss["recall_at_10"],
    }


def _apart(phase: Callable[..., dict[str, Any]], task: Task, name: str) -> dict[str, Any]:
    """In a process of its own: its memory is its own, and gone afterwards."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(phase, (task, name))


def _vectors(task: Task, queries: int) -> None:
    """Photos, queries and their exact answers, with and without filter, as files."""
    if task.file("answers.npz").exists():
        return
    world = World(task.rows, task.dim)
    photo_ND, category_N = world.photos(task.rows, seed=1)
    fresh_QD, _ = world.photos(queries // 2, seed=2)
    near = np.random.default_rng(3).integers(task.rows, size=queries - len(fresh_QD))
    query_QD = np.concatenate([fresh_QD, drawn(photo_ND[near], _COSINE, seed=4)])
    # A column for filters: below a threshold lies just the share wanted.
    number_N = np.random.default_rng(5).permutation(task.rows)
    answers = {"all": _exact(photo_ND, query_QD, None)}
    for share in KEPT_SHARES:
        answers[str(share)] = _exact(photo_ND, query_QD, number_N < share * task.rows)
    photo_ND.tofile(task.file("photos.f32"))
    np.savez(task.file("columns.npz"), category=category_N, number=number_N)
    np.save(task.file("queries.npy"), query_QD)
    np.savez(task.file("answers.npz"), **answers)


def _exact(photo_ND: Any, query_QD: Any, kept_N: Any) -> Any:
    """The places of the K nearest, (Q, K), by full scores."""
    best, scores = np.empty((len(query_QD), 0), np.int64), np.empty((len(query_QD), 0), np.float32)
    for start in range(0, len(photo_ND), _SCORED):
        part = query_QD @ photo_ND[start : start + _SCORED].T
        if kept_N is not None:
            part[:, ~kept_N[start : start + _SCORED]] = -2
        places = np.broadcast_to(np.arange(start, start + part.shape[1]), part.shape)
        scores, best = np.concatenate([scores, part], 1), np.concatenate([best, places], 1)
        order = np.argpartition(-scores, K - 1, axis=1)[:, :K]
        scores, best = np.take_along_axis(scores, order, 1), np.take_along_axis(best, order, 1)
    return best


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("benchmarks/search.py", description=(__doc__ or "").split(",")[0])
    add = parser.add_argument
    add("--rows", type=int, default=1_000_000)
    add("--dim", type=int, default=512)
    add("--queries", type=int, default=400)
    add("--seconds", type=float, default=8, help="that each figure is measured for, at most (%(default)s)")
    add("--keep", metavar="FOLDER", help="where to build, and to find what was built")
    add("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    return parser


if __name__ == "__main__":
    run(main, parser())
