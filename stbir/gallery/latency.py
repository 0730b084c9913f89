"""Search latency of a gallery version, beside that of the published version on the same machine."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from stbir.gallery.arrays import Features
from stbir.gallery.filters import Condition
from stbir.gallery.gallery import Gallery

MAX_SLOWDOWN = 3
_K = 10
_SLACK_MS = 10  # below, other work on the machine decides
_MIN_QUERIES, _MAX_SECONDS = 20, 2.0  # per filter
Latencies = dict[str, dict[str, float]]


def measure_latencies(
    gallery: Gallery,
    published: Gallery | None,
    query_QD: Features,
    filters: Mapping[str, Sequence[Condition]],
) -> Latencies:
    """The 95th percentile of the milliseconds of single queries, by filter: `p95_ms` of `gallery`, and
    `published_p95_ms` of `published`. The two take turns, so that other work slows both down."""
    latencies: Latencies = {}
    for name, where in filters.items():
        galleries = {"p95_ms": gallery}
        if published is not None and {each.column for each in where} <= published.columns.keys():
            galleries["published_p95_ms"] = published
        latencies[name] = _measure(galleries, query_QD, where)
    return latencies


def slowdown(latencies: Latencies, row_ratio: float) -> float:
    """The worst ratio of `p95_ms` to `published_p95_ms`, for a gallery that has `row_ratio` times as many
    rows as the published one; 0 if nothing is published. A few milliseconds do not count."""
    both = [each for each in latencies.values() if "published_p95_ms" in each]
    ratios = [each["p95_ms"] / (max(1.0, row_ratio) * each["published_p95_ms"] + _SLACK_MS) for each in both]
    return max(ratios, default=0.0)


def _measure(
    galleries: dict[str, Gallery], query_QD: Features, where: Sequence[Condition]
) -> dict[str, float]:
    times_ms: dict[str, list[float]] = {name: [] for name in galleries}
    for gallery in galleries.values():
        gallery.search(query_QD[:1], _K, where=where)  # fills the caches
    start = time.perf_counter()
    for number, query_D in enumerate(query_QD):
        if number >= _MIN_QUERIES and time.perf_counter() - start > _MAX_SECONDS:
            break
        for name, gallery in galleries.items():
            before = time.perf_counter()
            gallery.search(query_D[None], _K, where=where)
            times_ms[name].append(1000 * (time.perf_counter() - before))
    return {name: round(float(np.percentile(each, 95)), 3) for name, each in times_ms.items() if each}
