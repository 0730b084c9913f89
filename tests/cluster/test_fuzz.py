"""Ten thousand invalid and mutated requests to a running endpoint."""

import itertools
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import positive_data_acceptance

from benchmarks.endpoint.sides import key, make_world, serving
from tests.serve import hostile
from tests.serve.test_fuzz import EXPECTED_STATUSES

REQUESTS, SCHEMA_REQUESTS, SENDERS = 10_000, 150, 8
MAX_GROWTH = 1.1  # of a process's memory over the second half
MIB = 2**20


def requests() -> Iterator[tuple[str, bytes]]:
    """Hand-written requests first, then mutated ones."""
    for data, _ in hostile.images().values():
        yield hostile.FORM, hostile.form(sketch=data, text=b"red")
    for text in hostile.texts():
        yield hostile.FORM, hostile.form(text=text.encode(), k=b"100")
    yield from ((hostile.JSON, body) for body in hostile.json_bodies())
    yield from hostile.mutated_requests(seed=1)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Its URL, and the process id above its replicas."""
    with serving("serve_run", make_world(str(tmp_path_factory.mktemp("fuzz")), "smoke", 200)) as running:
        yield running


def memory_mib(process: int) -> dict[str, float]:
    """Private MiB of each replica."""
    below = psutil.Process(process).children(recursive=True)
    replicas = [each for each in below if "ServeReplica" in " ".join(each.cmdline())]
    return {f"{each.name()} {each.pid}": each.memory_full_info().uss / MIB for each in replicas}


def send(client: httpx.Client, batch: list[tuple[str, bytes]]) -> Counter[int]:
    def one(request: tuple[str, bytes]) -> int:
        kind, body = request
        return client.post("/v1/search", content=body, headers={"content-type": kind}).status_code

    with ThreadPoolExecutor(SENDERS) as senders:
        return Counter(senders.map(one, batch))


@pytest.mark.endurance
@pytest.mark.slow(reason="ten thousand requests")
@pytest.mark.timeout(600)
def test_ten_thousand_requests_cause_no_server_error(served: tuple[str, int]) -> None:
    url, process = served
    check_schema(url)
    sent = itertools.islice(requests(), REQUESTS - SCHEMA_REQUESTS)
    half = (REQUESTS - SCHEMA_REQUESTS) // 2
    with httpx.Client(base_url=url, timeout=60, headers={"Authorization": f"Bearer {key()}"}) as client:
        statuses = send(client, list(itertools.islice(sent, half)))
        before = memory_mib(process)
        statuses += send(client, list(sent))
        after = memory_mib(process)
        assert client.get("/readyz").status_code == 200
    print(dict(statuses), {name: (round(before[name]), round(after[name])) for name in before})
    assert statuses.total() == REQUESTS - SCHEMA_REQUESTS
    assert set(statuses) <= EXPECTED_STATUSES
    assert min(statuses[200], statuses[415], statuses[422]) > 100  # requests reach the model
    assert set(after) == set(before), "a replica died"
    assert all(after[name] <= MAX_GROWTH * before[name] for name in before)


def check_schema(url: str) -> None:
    """Requests generated from the OpenAPI schema conform to it."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")

    @given(st.data())
    @settings(
        max_examples=SCHEMA_REQUESTS,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def holds(data: st.DataObject) -> None:
        case = data.draw(schema["/v1/search"]["POST"].as_strategy())
        answer = case.call_and_validate(headers=headers, excluded_checks=[positive_data_acceptance])
        statuses[answer.status_code] += 1

    headers, statuses = {"Authorization": f"Bearer {key()}"}, Counter[int]()
    holds()
    print(dict(statuses))
    assert statuses[200] > 10, "requests reach the model"
    assert statuses[401] == 0
