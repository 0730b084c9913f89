"""Recall, latency and memory of one engine of `benchmarks/search.py`, in the calling process."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any

import numpy as np
import psutil

from benchmarks.engines import ENGINES, K, Search, Task
from benchmarks.memory_sampler import DRIVER, MemorySampler

CLIENTS = 8
_WARM_UP = 20


def build(task: Task, name: str) -> dict[str, Any]:
    """Build unless built; the seconds and the peak private memory of this process."""
    cache_file = task.file(f"{ENGINES[name].index_of or name}.json")
    if not cache_file.exists():
        with MemorySampler() as sampler:
            started = time.perf_counter()
            facts = ENGINES[name].build(task)
            seconds = time.perf_counter() - started
        results = {"build_s": round(seconds, 1), "build_peak_mib": round(sampler.peaks[DRIVER]), **facts}
        cache_file.write_text(json.dumps(results))
    return dict(json.loads(cache_file.read_text()))


def measure(task: Task, name: str) -> dict[str, Any]:
    """Recall and latency, unfiltered and under each filter."""
    engine = ENGINES[name]
    started = time.perf_counter()
    search = engine.open(task)
    opened = time.perf_counter() - started
    answers = np.load(task.file("answers.npz"))
    query_QD = np.load(task.file("queries.npy"))
    results: dict[str, Any] = {"open_s": round(opened, 1)}
    for key in answers.files if engine.filters else ["all"]:
        threshold = None if key == "all" else int(np.ceil(float(key) * task.rows))
        title = "unfiltered" if threshold is None else f"keeps {float(key):.2%}"
        results[title] = _figures(search, query_QD, threshold, answers[key], task.seconds)
    results["memory_mib"] = round(psutil.Process().memory_full_info().uss / 2**20)
    return results


def _figures(
    search: Search, query_QD: Any, threshold: int | None, answer_QK: Any, seconds: float
) -> dict[str, Any]:
    first_s = _timed(search, query_QD[0], threshold)
    for query_D in query_QD[:_WARM_UP]:
        search(query_D, threshold)
    times, hits = _one_client(search, query_QD, threshold, seconds)
    num_correct = [
        len({*map(int, results)} & {*answer_K.tolist()})
        for results, answer_K in zip(hits, answer_QK, strict=False)
    ]
    concurrent_times, rate = _many_clients(search, query_QD, threshold, seconds)
    return {
        "recall_at_10": round(sum(num_correct) / (min(K, threshold or K) * len(num_correct)), 4),
        **_quantiles(times),
        "first_ms": round(1000 * first_s, 2),
        "queries": len(times),
        "clients_8": {**_quantiles(concurrent_times), "per_s": round(rate, 1)},
    }


def _timed(search: Search, query_D: Any, threshold: int | None) -> float:
    started = time.perf_counter()
    search(query_D, threshold)
    return time.perf_counter() - started


def _one_client(
    search: Search, query_QD: Any, threshold: int | None, seconds: float
) -> tuple[list[float], list[Any]]:
    times, hits, deadline = [], [], time.perf_counter() + seconds
    for query_D in query_QD:
        started = time.perf_counter()
        hits.append(search(query_D, threshold))
        times.append(time.perf_counter() - started)
        if time.perf_counter() > deadline:
            break
    return times, hits


def _many_clients(
    search: Search, query_QD: Any, threshold: int | None, seconds: float
) -> tuple[list[float], float]:
    deadline = time.perf_counter() + seconds / 2

    def client(number: int) -> list[float]:
        queries, times = cycle(query_QD[number::CLIENTS]), []
        while time.perf_counter() < deadline:
            times.append(_timed(search, next(queries), threshold))
        return times

    started = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        times = [each for of_client in pool.map(client, range(CLIENTS)) for each in of_client]
    return times, len(times) / (time.perf_counter() - started)


def _quantiles(times: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(times, [50, 99])
    return {"p50_ms": round(1000 * float(p50), 2), "p99_ms": round(1000 * float(p99), 2)}
