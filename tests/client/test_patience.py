"""Both clients and a service in its bad hours: how often they ask, and when they have waited enough."""

import pytest

from stbir_client import DeadlineError, ProblemError, UnreachableError
from tests.client.conftest import Ask, Service, Wire, problem, slow, takes

BODY = b'{"hits": [], "gallery_version": 1, "checkpoint": "c", "timing_ms": {}}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY)


def test_full_is_asked_again_when_it_said(service: Service, ask: Ask) -> None:
    service.replies.append(problem(429, retry_after="1"))
    with takes(1, 5):
        assert ask(service.url, "search", b"picture").gallery_version == 3
    first, second = service.seen
    assert second.at - first.at >= 1
    assert first.headers["x-request-id"] == second.headers["x-request-id"]
    assert first.form == second.form


def test_a_service_that_starts_is_asked_again_soon(service: Service, ask: Ask) -> None:
    service.replies += [problem(503), problem(503)]
    with takes(0.125 + 0.25, 5):
        assert ask(service.url, "search", text="red").hits
    assert len(service.seen) == 3


def test_patience_ends_with_what_the_service_said(service: Service, ask: Ask) -> None:
    service.replies += [problem(503, "no gallery is published", retry_after="0")] * 3
    with pytest.raises(ProblemError) as error:
        ask(service.url, "search", text="red", retries=2)
    assert (error.value.status, error.value.detail) == (503, "no gallery is published")
    assert len(service.seen) == 3


def test_a_wait_beyond_the_deadline_is_not_begun(service: Service, ask: Ask) -> None:
    service.replies.append(problem(429, retry_after="60"))
    with takes(0, 5), pytest.raises(ProblemError) as error:
        ask(service.url, "search", text="red", deadline=9)
    assert (error.value.status, error.value.retry_after) == (429, 60)
    assert len(service.seen) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 413, 415, 422, 500, 504])
def test_a_refusal_is_final(service: Service, ask: Ask, status: int) -> None:
    service.replies.append(problem(status, "because", x_request_id="theirs"))
    with pytest.raises(ProblemError) as error:
        ask(service.url, "search", text="red")
    assert str(error.value) == f"{status} Title: because (request theirs)"
    assert len(service.seen) == 1


def test_the_deadline_ends_a_slow_answer(service: Service, ask: Ask) -> None:
    service.replies.append(slow)
    with takes(0.2, 4), pytest.raises(DeadlineError, match=r"no answer within 0\.2 s"):
        ask(service.url, "search", text="red", deadline=0.2)


@pytest.mark.parametrize("start", [HEAD[:9], HEAD, b""], ids=["in the head", "in the body", "silence"])
def test_the_deadline_ends_an_answer_that_trickles(wire: Wire, ask: Ask, start: bytes) -> None:
    """No single byte is late: a limit on each read would wait for ever."""
    wire.scripts = [[start, *([0.1, b" "] if start else [0.1]) * 50]]
    with takes(0.3, 4), pytest.raises(DeadlineError):
        ask(wire.url, "search", text="red", deadline=0.3)


def test_the_deadline_covers_retries(service: Service, ask: Ask) -> None:
    service.replies += [problem(503, retry_after="0"), slow]
    with takes(0.9, 4.5), pytest.raises(DeadlineError):
        ask(service.url, "search", text="red", deadline=0.9)


def test_a_cut_connection_is_made_again(wire: Wire, ask: Ask) -> None:
    wire.scripts = [[], [HEAD + BODY[:10]], [HEAD + BODY]]
    assert ask(wire.url, "search", text="red").hits == ()
    assert wire.connections == 3


def test_a_connection_that_is_always_cut(wire: Wire, ask: Ask) -> None:
    with pytest.raises(UnreachableError, match=f"^{wire.url}: no answer") as error:
        ask(wire.url, "search", text="red", retries=1)
    assert "\n" not in str(error.value)
    assert wire.connections == 2
