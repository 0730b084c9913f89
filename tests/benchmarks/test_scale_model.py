"""The model of scale: closed forms of queues, conservation, Serve's own rule, and its page."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve.autoscaling_policy import _apply_scaling_factors
from ray.serve.config import AutoscalingConfig

from benchmarks import scale_model
from benchmarks.simulation import capacity, report
from benchmarks.simulation.endpoint import (
    Cell,
    Outcomes,
    Scaling,
    Work,
    desired_replicas,
    simulate_closed,
    simulate_open,
)
from benchmarks.simulation.figures import fit, summaries, values
from benchmarks.simulation.fleet import fleet, with_settings
from benchmarks.simulation.jobs import Embedding, Training
from stbir.errors import InputError

SERVICE_S = 0.1
WORK = Work(0.003, 0.004, 0.004, 0.001, 0.004, 0.001, 0.001)
# Parameters as the fit returns them, to test sizes without a fit.
FIGURES = with_settings(
    {
        **values(),
        **{"ingress_ms": 3, "call_ms": 8, "background_ms": 9, "client_ms": 1, "client_reject_ms": 1},
        **{"photo_decode_ms": 2.5, "photo_encode_ms": 8, "photo_write_ms": 1, "job_start_s": 26},
        **{"sample_decode_ms": 1.3, "search_million_ms": 2.4, "search_exponent": 0.13},
    }
)


@pytest.fixture(scope="module")
def output() -> tuple[dict[str, Any], dict[str, str]]:
    return scale_model.model([])


def queue(servers: int) -> Cell:
    """M/M/c: only the search takes time, exponential, one search a group, no limits."""
    return Cell(
        Work(0, 0, 0, 0, 0, SERVICE_S, 0, jitter=1),
        fusion_replicas=servers,
        max_group_size=1,
        max_concurrent_groups=math.inf,
        max_queued=math.inf,
        deadline_s=math.inf,
    )


def erlang_wait_s(rate: float, servers: int) -> float:
    """Mean wait of M/M/c (Erlang C)."""
    load = rate * SERVICE_S
    full = load**servers / math.factorial(servers) * servers / (servers - load)
    waiting = full / (sum(load**k / math.factorial(k) for k in range(servers)) + full)
    return waiting * SERVICE_S / (servers - load)


@pytest.mark.parametrize(("servers", "rate"), [(1, 5), (3, 20)])
def test_wait_is_that_of_a_queue_with_exponential_service(servers: int, rate: float) -> None:
    outcomes = simulate_open(queue(servers), rate, seconds=40_000 / rate)
    mean_s = sum(took for _, took in outcomes.answers) / len(outcomes.answers)
    assert mean_s - SERVICE_S == pytest.approx(erlang_wait_s(rate, servers), rel=0.1)


@pytest.mark.parametrize("cores", [None, 2])
@pytest.mark.parametrize("rate", [50, 1000])
def test_searches_are_answered_rejected_late_or_in_flight(rate: float, cores: int | None) -> None:
    outcomes = simulate_open(Cell(WORK, cores=cores, deadline_s=1.0), rate, seconds=5)
    assert outcomes.arrived == outcomes.counts.total() + outcomes.in_flight
    assert (outcomes.counts["shed"] > 0) is (rate > 500)


def test_waits_grow_with_the_load() -> None:
    p99_s = [simulate_closed(Cell(WORK, cores=2), clients, 10).quantile_s(0.99) for clients in (1, 4, 16, 64)]
    assert p99_s == sorted(p99_s)


def test_admission_bounds_the_wait() -> None:
    small, large = (
        simulate_open(Cell(WORK, cores=2, max_queued=places), 1000, 10).quantile_s(0.99)
        for places in (16, 256)
    )
    assert small < large / 2


@given(
    ongoing=st.integers(0, 5000),
    current=st.integers(1, 20),
    target=st.floats(0.5, 300),
    max_replicas=st.integers(1, 30),
)
def test_desired_replicas_are_those_of_ray_serve(
    ongoing: int, current: int, target: float, max_replicas: int
) -> None:
    config = AutoscalingConfig(min_replicas=1, max_replicas=max_replicas, target_ongoing_requests=target)
    desired = _apply_scaling_factors(ongoing / target, current, config)
    scaling = Scaling(target, max_replicas, 0, 0, 0)
    assert desired_replicas(ongoing, scaling) == min(max_replicas, max(1, desired))


def test_replicas_follow_a_burst_after_their_delay() -> None:
    scaling = Scaling(target=16, max_replicas=4, upscale_delay_s=5, downscale_delay_s=60, start_s=3)
    cell = Cell(WORK, sketch_replicas=8, fusion_replicas=8)
    fixed, scaled = (simulate_open(cell, 700, 40, rule) for rule in (None, scaling))
    [(start_s, count), *_] = scaled.replicas
    assert start_s >= 8
    assert count > 1
    assert rate_after(scaled, 20) == pytest.approx(700, rel=0.05)
    assert rate_after(fixed, 20) < 400  # 3 ms of the one ingress


def rate_after(outcomes: Outcomes, start_s: float) -> float:
    return sum(end > start_s for end, _ in outcomes.answers) / (40 - start_s)


@pytest.mark.parametrize(("decoders", "encoders", "slowest"), [(1, 8, 500), (16, 1, 125), (4, 4, 500)])
def test_embedding_is_as_fast_as_its_slowest_stage(decoders: int, encoders: int, slowest: float) -> None:
    job = Embedding(0.002, 0.008, 0.0, decoders, encoders)
    assert job.photos_per_s() == pytest.approx(slowest, rel=0.05)


def test_processes_that_share_cores_add_their_work() -> None:
    job = Embedding(0.002, 0.008, 0.0, decoders=2, encoders=1, threads=2, cores=2)
    assert job.photos_per_s() == pytest.approx(2 / (0.002 + 0.008), rel=0.05)
    training = Training(64, compute=0.01, decode=0.002, decoders=2, cores=2)
    assert training.samples_per_s() == pytest.approx(2 / (0.01 + 0.002), rel=0.05)


def test_workers_wait_for_the_exchange_of_gradients() -> None:
    training = Training(100, 0.001, 0.0001, 4, workers=4, exchange_bytes=1e9, bandwidth=1e10, jitter=1e-3)
    assert training.samples_per_s() == pytest.approx(400 / (0.1 + 1.5 * 0.1), rel=0.01)


def test_cost_grows_with_photos_and_searches() -> None:
    costs = [
        [fleet(FIGURES, photos, rate).dollars_month for rate in report.RATES] for photos in report.PHOTOS
    ]
    assert all(list(row) == sorted(row) for row in (*costs, *zip(*costs, strict=True)))


def test_limits_are_sorted_and_hold_at_the_largest_rate() -> None:
    rate = capacity.largest_rate(FIGURES, 1e6)
    ratios = [limit.ratio for limit in capacity.limits(FIGURES, 1e6, rate)]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] <= 1 < capacity.limits(FIGURES, 1e6, 1.05 * rate)[0].ratio


def test_figures_without_effect_on_the_cost_have_none() -> None:
    changes = capacity.sensitivity(FIGURES, *report.CENTRE)
    assert changes["photo_decode_ms"] == (1.0, 1.0)
    assert changes["vcpu_hour"] == pytest.approx((0.5, 1.5), abs=0.05)


def test_output_of_a_benchmark_replaces_the_recorded_one(tmp_path: Path) -> None:
    file = tmp_path / "embed.json"
    line = {"photos": 10, "photos_per_s": {"ours": 1.0}, "whole_s": {"ours": 20.0}}
    file.write_text(f"a table\n{json.dumps(line)}\n")
    assert summaries([str(file)])["embed"] == [line]
    assert summaries([str(file)])["serve"] == summaries()["serve"]


@pytest.mark.parametrize("content", ["", "no JSON\n", "[1]\n", '"load"\n', '{"other": 1}\n'])
def test_file_without_the_output_of_a_benchmark_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "output"
    file.write_text(content)
    with pytest.raises(InputError, match=f"--benchmarks: {file} does not end with the JSON line"):
        summaries([str(file)])


def test_missing_runs_are_named(tmp_path: Path) -> None:
    file = tmp_path / "serve.json"
    file.write_text(json.dumps({"load": {"ours": {"4 clients": {}}}}))
    with pytest.raises(InputError, match=r"serve.py: run it with --clients 1 8 32"):
        fit(summaries([str(file)]), values())


# These tests simulate all measured runs and all sizes.
@pytest.mark.slow
def test_page_is_the_output_of_the_model(output: tuple[dict[str, Any], dict[str, str]]) -> None:
    assert report.markdown(output[1]) in scale_model.DOCUMENT.read_text()


@pytest.mark.slow
def test_predictions_are_close_to_measurements(output: tuple[dict[str, Any], dict[str, str]]) -> None:
    errors = output[0]["errors"]
    close = [f"endpoint, {clients} clients" for clients in (1, 8, 32)]
    close += [f"training, {stage}" for stage in ("sketch", "image", "text", "joint", "fusion", "4 workers")]
    for run in (*close, "overload, 755/s: answers/s"):
        found = [error for figure, error in errors.items() if figure.startswith(run)]
        assert found
        assert max(map(abs, found)) <= 0.15, run
