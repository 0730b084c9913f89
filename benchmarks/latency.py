"""Recall, latency and memory of one engine of `benchmarks/search.py`, in the process that calls."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any

import numpy as np
import psutil

from benchmarks.engines import ENGINES, Ask, K, Task

CLIENTS = 8
_WARM_UP = 20


def build(task: Task, name: str) -> dict[str, Any]:
    """Build where it is not built yet; seconds and the peak of memory that this process held for itself."""
    note = task.file(f"{ENGINES[name].of or name}.json")
    if not note.exists():
        with _Peak() as peak:
            started = time.perf_counter()
            facts = ENGINES[name].build(task)
            spent = time.perf_counter() - started
        found = {"build_s": round(spent, 1), "build_peak_mib": round(peak[0] / 2**20), **facts}
        note.write_text(json.dumps(found))
    return dict(json.loads(note.read_text()))


def measure(task: Task, name: str) -> dict[str, Any]:
    """Recall and latency, unfiltered and under each filter."""
    engine = ENGINES[name]
    started = time.perf_counter()
    ask = engine.open(task)
    opened = time.perf_counter() - started
    answers = np.load(task.file("answers.npz"))
    query_QD = np.load(task.file("queries.npy"))
    found: dict[str, Any] = {"open_s": round(opened, 1)}
    for key in answers.files if engine.filters else ["all"]:
        kept = None if key == "all" else int(np.ceil(float(key) * task.rows))
        title = "unfiltered" if kept is None else f"keeps {float(key):.2%}"
        found[title] = _figures(ask, query_QD, kept, answers[key], task.seconds)
    found["memory_mib"] = round(psutil.Process().memory_full_info().uss / 2**20)
    return found


def _figures(ask: Ask, query_QD: Any, kept: int | None, answer_QK: Any, seconds: float) -> dict[str, Any]:
    first = _timed(ask, query_QD[0], kept)
    for query_D in query_QD[:_WARM_UP]:
        ask(query_D, kept)
    times, hits = _one_client(ask, query_QD, kept, seconds)
    right = [
        len({*map(int, found)} & {*answer_K.tolist()})
        for found, answer_K in zip(hits, answer_QK, strict=False)
    ]
    many, rate = _many_clients(ask, query_QD, kept, seconds)
    return {
        "recall_at_10": round(sum(right) / (min(K, kept or K) * len(right)), 4),
        **_quantiles(times),
        "first_ms": round(1000 * first, 2),
        "queries": len(times),
        "clients_8": {**_quantiles(many), "per_s": round(rate, 1)},
    }


def _timed(ask: Ask, query_D: Any, kept: int | None) -> float:
    started = time.perf_counter()
    ask(query_D, kept)
    return time.perf_counter() - started


def _one_client(ask: Ask, query_QD: Any, kept: int | None, seconds: float) -> tuple[list[float], list[Any]]:
    times, hits, until = [], [], time.perf_counter() + seconds
    for query_D in query_QD:
        started = time.perf_counter()
        hits.append(ask(query_D, kept))
        times.append(time.perf_counter() - started)
        if time.perf_counter() > until:
            break
    return times, hits


def _many_clients(ask: Ask, query_QD: Any, kept: int | None, seconds: float) -> tuple[list[float], float]:
    until = time.perf_counter() + seconds / 2

    def client(number: int) -> list[float]:
        mine, times = cycle(query_QD[number::CLIENTS]), []
        while time.perf_counter() < until:
            times.append(_timed(ask, next(mine), kept))
        return times

    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        times = [each for of_client in pool.map(client, range(CLIENTS)) for each in of_client]
    return times, len(times) / (time.perf_counter() - started)


def _quantiles(times: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(times, [50, 99])
    return {"p50_ms": round(1000 * float(p50), 2), "p99_ms": round(1000 * float(p99), 2)}


class _Peak:
    """Samples what this process holds for itself until the block ends."""

    def __enter__(self) -> list[int]:
        self._most, self._ended = [0], threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self._most

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            self._most[0] = max(self._most[0], psutil.Process().memory_full_info().uss)

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
