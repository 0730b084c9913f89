"""Figures of the model: recorded measurements, values with sources, and the parameters fitted to them."""

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.simulation.endpoint import Cell, Work, simulate_closed
from stbir.errors import InputError

Values = Mapping[str, float]
Summary = Mapping[str, Any]  # the last line of a benchmark
# A field by which the summary of a benchmark is recognised.
KINDS = {
    "serve": "load",
    "embed": "photos_per_s",
    "search": "rows",
    "train": "resident_samples_per_s",
    "scaling": "by_workers",
    "overload": "statuses",
}
FIT_CLIENTS = (1, 8, 32)
OVERLOAD_TIMES = 4  # the default of benchmarks/overload.py
_WINDOW_S, _WARM_UP_S = 8.0, 2.0  # of benchmarks/serve.py
_FIT_ROUNDS, _STEP = 10, 0.7


@cache
def recorded() -> dict[str, Any]:
    """The content of figures.yaml."""
    content: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "figures.yaml").read_text())
    return content


def values() -> dict[str, float]:
    """The values of figures.yaml by name."""
    return {name: float(each["value"]) for name, each in recorded()["values"].items()}


def summaries(files: Iterable[str] = ()) -> dict[str, list[Summary]]:
    """Benchmark summaries by kind: those of `files`, which end with a line of JSON, else the recorded ones.

    Raises InputError for a file without such a line, or of another benchmark.
    """
    return by_kind(recorded()["benchmarks"]) | by_kind(_last_line(file) for file in files)


def _last_line(file: str) -> Summary:
    try:
        content: Summary = dict(json.loads(Path(file).read_text().splitlines()[-1]))
        by_kind([content])
    except (OSError, ValueError, IndexError, TypeError, KeyError) as error:
        raise InputError(
            f"--benchmarks: {file} does not end with the JSON line of {', '.join(KINDS)}.py"
        ) from error
    return content


def by_kind(given: Iterable[Summary]) -> dict[str, list[Summary]]:
    """Summaries by benchmark. Raises KeyError for another benchmark."""
    found: dict[str, list[Summary]] = {}
    for summary in given:
        kinds = [kind for kind, mark in KINDS.items() if mark in summary]
        if not kinds:
            raise KeyError("not the summary of a known benchmark")
        found.setdefault(kinds[0], []).append(summary)
    return found


def fit(given: Mapping[str, list[Summary]], known: Values) -> dict[str, float]:
    """`known` and the fitted parameters: CPU ms of a search, a photo, a sample; the growth of search time."""
    return {
        **known,
        **_fit_embedding(given["embed"][-1], known),
        **_fit_training(given["train"][-1], given["scaling"][-1], known),
        **_fit_search(given["search"], known),
        **_fit_endpoint(given["serve"][-1], known),
        **_fit_rejection(given["overload"][-1], known),
    }


def _fit_embedding(embed: Summary, known: Values) -> dict[str, float]:
    rates, core_ms = embed["photos_per_s"], 1000 * known["benchmark_cores"]
    decode, encode = core_ms / rates["decoding"], core_ms / rates["encoding"]
    write = max(0.0, core_ms / rates["ours"] - decode - encode)
    start_s = embed["whole_s"]["ours"] - embed["photos"] / rates["ours"]
    return {
        "photo_decode_ms": decode,
        "photo_encode_ms": encode,
        "photo_write_ms": write,
        "job_start_s": start_s,
    }


def _fit_training(train: Summary, scaling: Summary, known: Values) -> dict[str, float]:
    two = scaling["by_workers"].get(2) or scaling["by_workers"]["2"]
    return {
        "sample_decode_ms": sample_decode_ms(train, known),
        "benchmark_exchange_bytes": scaling["megabytes"] * 2**20 / two["exchanged_s"],
    }


def sample_decode_ms(train: Summary, known: Values, without: str = "") -> float:
    """CPU ms that the pipeline adds to a sample: the median of the stages but one."""
    resident, rates = train["resident_samples_per_s"], train["samples_per_s"]
    added_s = [1 / rate - 1 / resident[stage] for stage, rate in rates.items() if stage != without]
    return float(1000 * known["benchmark_cores"] * statistics.median(added_s))


def _fit_search(searches: list[Summary], known: Values) -> dict[str, float]:
    """CPU ms of a search among 10^6 photos, and the exponent of its growth with the number of photos."""
    points = sorted((each["rows"], each["p50_ms"]) for each in searches)
    if len(points) < 2:
        raise InputError(
            "--benchmarks: search.py at two or more --rows is needed for the growth of search time"
        )
    log_rows, log_ms = np.log(np.array(points)).T
    exponent = float(np.polyfit(log_rows, log_ms, 1)[0])
    rows, per_s = next(
        (each["rows"], each["engines"]["ours"]["unfiltered"]["clients_8"]["per_s"])
        for each in sorted(searches, key=lambda each: -each["rows"])
        if "engines" in each
    )
    core_ms = 1000 * known["benchmark_cores"] / per_s
    return {"search_million_ms": core_ms * (1e6 / rows) ** exponent, "search_exponent": exponent}


def _fit_endpoint(serve: Summary, known: Values) -> dict[str, float]:
    """Fixed-point iteration of three parameters, each against the row that shows it most.

    The median at one client shows the calls of a search, the rate at 8 the work beside its groups, the rate
    at 32 the work of the load generator. What then remains of the CPU time of a search is the ingress.
    """
    rows = serve["load"]["ours"]
    if any(f"{clients} clients" not in rows for clients in FIT_CLIENTS):
        raise InputError("--benchmarks: serve.py: run it with --clients 1 8 32")
    one, few, many = (rows[f"{clients} clients"] for clients in FIT_CLIENTS)
    core_ms = 1000 * known["benchmark_cores"]
    call, background, client = 3.0, 15.0, 2.0
    fitted: dict[str, float] = {}
    for _ in range(_FIT_ROUNDS):
        ingress = serve["cpu_ms"]["ours"] - _group_ms(known, call + background) / 16
        fitted = {"ingress_ms": ingress, "call_ms": call, "background_ms": background, "client_ms": client}
        cell = benchmark_cell({**known, **fitted})
        found_one, found_few, found_many = (measure(cell, clients) for clients in FIT_CLIENTS)
        call = max(0.0, call + _STEP * (one["p50_ms"] - found_one["p50_ms"]))
        background += 4 * _STEP * core_ms * (1 / few["rps"] - 1 / found_few["rps"])
        client = max(0.0, client + _STEP * core_ms * (1 / many["rps"] - 1 / found_many["rps"]))
    return fitted


def _fit_rejection(overload: Summary, known: Values) -> dict[str, float]:
    """CPU ms of a rejected search outside the ingress: what the answered ones leave of the cores."""
    statuses, rate, core_ms = overload["statuses"], overload["rate"], 1000 * known["benchmark_cores"]
    answered = rate * statuses["200"] / sum(statuses.values())
    left_ms = core_ms * (1 - answered / (rate / OVERLOAD_TIMES))
    return {"client_reject_ms": max(0.0, left_ms / (rate - answered) - known["reject_ms"])}


def _group_ms(known: Values, call_ms: float) -> float:
    """CPU ms of a full group of 16 outside the ingress."""
    work = benchmark_cell(
        {**known, "ingress_ms": 0, "call_ms": call_ms, "background_ms": 0, "client_ms": 0}
    ).work
    sketches = 16 * Cell.sketch_share
    items_s = work.encode_item * sketches + work.search_item * 16
    return 1000 * (work.call + work.encode_fixed + work.search_fixed + items_s)


def work(figures: Values) -> Work:
    """The parts of a search on the machine of the benchmarks."""
    first, full = figures["sketch_batch_1_ms"], figures["sketch_batch_16_ms"]
    item = (full - first) / 15
    ms = {
        "ingress": figures["ingress_ms"],
        "call": figures["call_ms"],
        "background": figures["background_ms"],
        "encode_fixed": first - item,
        "encode_item": item + figures["sketch_decode_ms"],
        "search_fixed": figures["search_small_ms"] - figures["search_small_item_ms"],
        "search_item": figures["search_small_item_ms"],
        "reject": figures["reject_ms"],
        "client": figures["client_ms"],
        "client_reject": figures.get("client_reject_ms", 0.0),
    }
    return Work(**{name: each / 1000 for name, each in ms.items()}, jitter=figures["service_cv"])


def benchmark_cell(figures: Values) -> Cell:
    """The endpoint of the benchmarks: one replica of each kind, and the load generator, on the same cores."""
    return Cell(work(figures), cores=int(figures["benchmark_cores"]))


def measure(cell: Cell, clients: int) -> dict[str, float]:
    """What benchmarks/serve.py prints: only searches that begin after its warm-up count."""
    outcomes = simulate_closed(cell, clients, _WARM_UP_S + _WINDOW_S)
    count = sum(end - took >= _WARM_UP_S for end, took in outcomes.answers)
    p50, p99 = (1000 * outcomes.quantile_s(share, _WARM_UP_S) for share in (0.5, 0.99))
    return {"rps": count / _WINDOW_S, "p50_ms": p50, "p99_ms": p99}


def with_openvino(figures: Values) -> Work:
    """The work of a search where OpenVINO runs the sketch encoder, and each process has its own cores."""
    base, faster = work(figures), figures["openvino_speedup"]
    decode = figures["sketch_decode_ms"] / 1000
    item = (base.encode_item - decode) / faster + decode
    return replace(base, encode_fixed=base.encode_fixed / faster, encode_item=item, client=0.0)
