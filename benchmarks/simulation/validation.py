"""Prediction against measurement: only figures that the fit did not use."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from benchmarks.simulation.endpoint import simulate_open
from benchmarks.simulation.figures import (
    FIT_CLIENTS,
    OVERLOAD_TIMES,
    Summary,
    Values,
    benchmark_cell,
    measure,
    sample_decode_ms,
)
from benchmarks.simulation.jobs import Training

TOLERANCE = 0.15
_CAPACITY_CLIENTS = 64  # of benchmarks/overload.py
_OVERLOAD_S = 30.0  # simulated; measured for 120


class Comparison(NamedTuple):
    """A predicted and a measured figure."""

    run: str
    figure: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Relative to the measurement."""
        return self.predicted / self.measured - 1


def validate(
    figures: Values, given: Mapping[str, list[Summary]], held_out: Mapping[str, list[Summary]]
) -> list[Comparison]:
    """All comparisons."""
    return [
        *_endpoint(figures, given["serve"][-1]),
        *(each for run in held_out.get("overload", []) for each in _overload(figures, run)),
        *_training(figures, given["train"][-1]),
        *_scaling(figures, given["scaling"][-1]),
    ]


def _endpoint(figures: Values, serve: Summary) -> Iterator[Comparison]:
    cell = benchmark_cell(figures)
    # Rates of a closed loop also determine its median (Little's law).
    fitted = {(1, "p50_ms"), *itertools.product(FIT_CLIENTS[1:], ("rps", "p50_ms"))}
    for name, measured in serve["load"]["ours"].items():
        clients = int(name.split()[0])
        found = measure(cell, clients)
        for figure in ("rps", "p50_ms", "p99_ms"):
            if (clients, figure) not in fitted:
                yield Comparison(f"endpoint, {clients} clients", figure, found[figure], measured[figure])


def _overload(figures: Values, run: Summary) -> Iterator[Comparison]:
    """The speed of the machine is that of the run: it is known from the throughput before the overload."""
    cell = benchmark_cell(figures)
    slowness = OVERLOAD_TIMES * measure(cell, _CAPACITY_CLIENTS)["rps"] / run["rate"]
    outcomes = simulate_open(replace(cell, work=cell.work.scaled(slowness)), run["rate"], _OVERLOAD_S)
    answered, name = outcomes.counts["ok"] / _OVERLOAD_S, f"overload, {run['rate']}/s"
    measured = run["rate"] * run["statuses"]["200"] / sum(run["statuses"].values())
    yield Comparison(name, "answers/s", answered, measured)
    yield Comparison(name, "p99_ms", 1000 * outcomes.quantile_s(0.99), run["p99_ms"])


def _training(figures: Values, train: Summary) -> Iterator[Comparison]:
    cores = int(figures["benchmark_cores"])
    for stage, measured in train["samples_per_s"].items():
        compute = cores / train["resident_samples_per_s"][stage]
        decode = sample_decode_ms(train, figures, without=stage) / 1000
        training = Training(train["batch"], compute, decode, decoders=cores, cores=cores)
        yield Comparison(f"training, {stage}", "samples/s", training.samples_per_s(), measured)


def _scaling(figures: Values, scaling: Summary) -> Iterator[Comparison]:
    share, bandwidth = scaling["share"], figures["benchmark_exchange_bytes"]
    for workers, measured in scaling["by_workers"].items():
        if int(workers) > 2:
            exchange = scaling["megabytes"] * 2**20
            training = Training(
                share, scaling["sleep_s"] / share, 0.0, int(workers), int(workers), exchange, bandwidth
            )
            steps = training.samples_per_s() / share / int(workers)
            yield Comparison(f"training, {workers} workers", "steps/s", steps, measured["steps_per_s"])
