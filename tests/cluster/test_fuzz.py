"""Ten thousand requests that nobody should send, to the endpoint as it is served."""

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

from benchmarks.endpoint.sides import key, serving, world
from tests.serve import hostile
from tests.serve.test_fuzz import EXPECTED

REQUESTS, DESCRIBED, SENDERS = 10_000, 150, 8
GROWTH = 1.1  # of a process, over the second half
MIB = 2**20


def requests() -> Iterator[tuple[str, bytes]]:
    """Made by hand first, then bent."""
    for data, _ in hostile.pictures().values():
        yield hostile.FORM, hostile.form(sketch=data, text=b"red")
    for text in hostile.texts():
        yield hostile.FORM, hostile.form(text=text.encode(), k=b"100")
    yield from ((hostile.JSON, body) for body in hostile.json_bodies())
    yield from hostile.bent(seed=1)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Where it listens, and the process below which its replicas are."""
    with serving("serve_run", world(str(tmp_path_factory.mktemp("fuzz")), "smoke", 200)) as running:
        yield running


def held(process: int) -> dict[str, float]:
    """MiB of each replica's own."""
    below = psutil.Process(process).children(recursive=True)
    replicas = [each for each in below if "ServeReplica" in " ".join(each.cmdline())]
    return {f"{each.name()} {each.pid}": each.memory_full_info().uss / MIB for each in replicas}


def send(client: httpx.Client, some: list[tuple[str, bytes]]) -> Counter[int]:
    def one(request: tuple[str, bytes]) -> int:
        kind, body = request
        return client.post("/v1/search", content=body, headers={"content-type": kind}).status_code

    with ThreadPoolExecutor(SENDERS) as senders:
        return Counter(senders.map(one, some))


@pytest.mark.endurance
@pytest.mark.slow(reason="ten thousand requests")
@pytest.mark.timeout(600)
def test_ten_thousand_requests_and_no_fault(served: tuple[str, int]) -> None:
    url, process = served
    described(url)
    sent = itertools.islice(requests(), REQUESTS - DESCRIBED)
    half = (REQUESTS - DESCRIBED) // 2
    with httpx.Client(base_url=url, timeout=60, headers={"Authorization": f"Bearer {key()}"}) as client:
        statuses = send(client, list(itertools.islice(sent, half)))
        before = held(process)
        statuses += send(client, list(sent))
        after = held(process)
        assert client.get("/readyz").status_code == 200
    print(dict(statuses), {name: (round(before[name]), round(after[name])) for name in before})
    assert statuses.total() == REQUESTS - DESCRIBED
    assert set(statuses) <= EXPECTED
    assert min(statuses[200], statuses[415], statuses[422]) > 100  # it reaches all the way in
    assert set(after) == set(before), "a replica died"
    assert all(after[name] <= GROWTH * before[name] for name in before)


def described(url: str) -> None:
    """What the description allows and forbids."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")

    @given(st.data())
    @settings(
        max_examples=DESCRIBED,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def holds(data: st.DataObject) -> None:
        case = data.draw(schema["/v1/search"]["POST"].as_strategy())
        answer = case.call_and_validate(headers=keyed, excluded_checks=[positive_data_acceptance])
        statuses[answer.status_code] += 1

    keyed, statuses = {"Authorization": f"Bearer {key()}"}, Counter[int]()
    holds()
    print(dict(statuses))
    assert statuses[200] > 10, "it reaches all the way in"
    assert statuses[401] == 0
