"""The hostile requests of `benchmarks/hostile.py`, sent over sockets to the application in this process."""

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn

from benchmarks.endpoint.flood import HUNG_UP, Outcomes, flood
from benchmarks.endpoint.hostile_requests import KINDS, HostileRequest, endless
from benchmarks.endpoint.memory import Memory
from benchmarks.endpoint.sides import Row
from benchmarks.endpoint.world import make_checkpoint, make_gallery
from benchmarks.hostile import summary
from tests.conftest import free_port, wait_until
from tests.serve.local import application

pytestmark = pytest.mark.slow(reason="requests over sockets at a fixed rate")
NUM_KINDS, RATE = 12, 50.0


def variants(kind: str) -> list[HostileRequest]:
    return list(KINDS[kind](np.random.default_rng(0)))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The application with random encoders and 50 photos, on a port of 127.0.0.1."""
    folder: Path = tmp_path_factory.mktemp("world")
    checkpoint_uri = make_checkpoint(str(folder / "checkpoint"), "smoke")
    app = application(checkpoint_uri, make_gallery(str(folder / "gallery"), checkpoint_uri, 50))
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started, "the server listens")
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_each_request_of_a_kind_is_answered_with_its_status(url: str, kind: str) -> None:
    requests = variants(kind)
    pairs = ((f"{kind} {number}", request) for number, request in enumerate(requests))
    outcomes = asyncio.run(flood(url, "", pairs, len(requests), RATE))
    assert outcomes.unexpected == Counter()
    assert sum(counts.total() for counts in outcomes.statuses.values()) == len(requests)


def test_a_server_error_and_a_missing_answer_are_unexpected() -> None:
    outcomes, request = Outcomes(), HostileRequest(b"")
    for status in ("422", "429", "500", HUNG_UP):
        outcomes.record("kind", request, status)
    outcomes.record("hang_ups", variants("hang_ups")[0], HUNG_UP)
    url = f"http://127.0.0.1:{free_port()}"  # on which no server listens
    closed = asyncio.run(flood(url, "", [("kind", request)], 1, RATE))
    assert outcomes.unexpected == {"kind: 500": 1, f"kind: {HUNG_UP}": 1}
    assert closed.unexpected == {"kind: ClientConnectorError": 1}


def test_hang_ups_happen_before_and_after_the_status(url: str) -> None:
    requests = [("hang_ups", request) for request in variants("hang_ups")]
    statuses = asyncio.run(flood(url, "", requests, len(requests), RATE)).statuses["hang_ups"]
    assert statuses.keys() == {HUNG_UP, "200"}


def test_requests_are_equal_for_equal_seeds_and_kinds_have_equal_shares() -> None:
    first, same, other = (list(itertools.islice(endless(seed), 2 * NUM_KINDS)) for seed in (1, 1, 2))
    assert first == same != other
    assert Counter(kind for kind, _ in first) == dict.fromkeys(KINDS, 2)


def searches(p99_ms: float, **statuses: int) -> Row:
    row = {"p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": p99_ms, "cores": 0.5}
    return {**row, "statuses": statuses or {"200": 9}}


def memory(*mib: float) -> Memory:
    samples = Memory(pid=0)
    samples.samples, samples.names = [{1: each} for each in mib], {1: "ray::Replica"}
    return samples


def test_the_verdict_names_each_reason() -> None:
    outcomes, flat = Outcomes(), memory(100, 300, 300, 310)
    outcomes.record("deep_json", HostileRequest(b""), "422")
    passed = summary(searches(10), searches(20), outcomes, flat)
    assert (passed["passed"], passed["reasons"]) == (True, [])
    assert passed["memory_mib"] == {"start": 100, "end": 310, "peak": 310, "growth": 1.033}
    assert passed["kinds"] == {"deep_json": {"count": 1, "statuses": {"422": 1}}}
    outcomes.record("deep_json", HostileRequest(b""), "500")
    flat.samples[-1] = {2: 400}
    failed = summary(searches(10), searches(21, **{"200": 9, "429": 1}), outcomes, flat)
    assert failed["reasons"] == [
        "deep_json: 500 (1)",
        "searches beside: {'200': 9, '429': 1}",
        "p99 x 2.1",
        "memory x 1.333",
        "ray::Replica 1 ended",
    ]
