"""Retries and deadlines of both clients."""

import pytest

from stbir_client import DeadlineError, ProblemError, UnreachableError
from tests.client.conftest import CallClient, FakeServer, RawServer, expect_duration, problem, respond_slowly

BODY = b'{"hits": [], "gallery_version": 1, "checkpoint": "c", "timing_ms": {}}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY)


def test_retry_after_is_respected(server: FakeServer, call_client: CallClient) -> None:
    server.replies.append(problem(429, retry_after="1"))
    with expect_duration(1, 5):
        assert call_client(server.url, "search", b"image").gallery_version == 3
    request, retry = server.requests
    assert retry.time_s - request.time_s >= 1
    assert retry.headers["x-request-id"] == request.headers["x-request-id"]
    assert retry.form == request.form


def test_503_is_retried_with_backoff(server: FakeServer, call_client: CallClient) -> None:
    server.replies += [problem(503), problem(503)]
    with expect_duration(0.125 + 0.25, 5):
        assert call_client(server.url, "search", text="red").hits
    assert len(server.requests) == 3


def test_last_error_is_raised_after_the_retries(server: FakeServer, call_client: CallClient) -> None:
    server.replies += [problem(503, "no gallery is published", retry_after="0")] * 3
    with pytest.raises(ProblemError) as error:
        call_client(server.url, "search", text="red", retries=2)
    assert (error.value.status, error.value.detail) == (503, "no gallery is published")
    assert len(server.requests) == 3


def test_no_delay_beyond_the_deadline(server: FakeServer, call_client: CallClient) -> None:
    server.replies.append(problem(429, retry_after="60"))
    with expect_duration(0, 5), pytest.raises(ProblemError) as error:
        call_client(server.url, "search", text="red", deadline=9)
    assert (error.value.status, error.value.retry_after) == (429, 60)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 413, 415, 422, 500, 504])
def test_other_statuses_are_not_retried(server: FakeServer, call_client: CallClient, status: int) -> None:
    server.replies.append(problem(status, "because", x_request_id="theirs"))
    with pytest.raises(ProblemError) as error:
        call_client(server.url, "search", text="red")
    assert str(error.value) == f"{status} Title: because (request theirs)"
    assert len(server.requests) == 1


def test_deadline_ends_a_slow_answer(server: FakeServer, call_client: CallClient) -> None:
    server.replies.append(respond_slowly)
    with expect_duration(0.2, 4), pytest.raises(DeadlineError, match=r"no answer within 0\.2 s"):
        call_client(server.url, "search", text="red", deadline=0.2)


@pytest.mark.parametrize("start", [HEAD[:9], HEAD, b""], ids=["in the head", "in the body", "silence"])
def test_deadline_ends_a_trickling_answer(
    raw_server: RawServer, call_client: CallClient, start: bytes
) -> None:
    """Each byte arrives in time, so a timeout per read would never fire."""
    raw_server.scripts = [[start, *([0.1, b" "] if start else [0.1]) * 50]]
    with expect_duration(0.3, 4), pytest.raises(DeadlineError):
        call_client(raw_server.url, "search", text="red", deadline=0.3)


def test_deadline_covers_retries(server: FakeServer, call_client: CallClient) -> None:
    server.replies += [problem(503, retry_after="0"), respond_slowly]
    with expect_duration(0.9, 4.5), pytest.raises(DeadlineError):
        call_client(server.url, "search", text="red", deadline=0.9)


def test_broken_connections_are_retried(raw_server: RawServer, call_client: CallClient) -> None:
    raw_server.scripts = [[], [HEAD + BODY[:10]], [HEAD + BODY]]
    assert call_client(raw_server.url, "search", text="red").hits == ()
    assert raw_server.connections == 3


def test_persistently_broken_connection(raw_server: RawServer, call_client: CallClient) -> None:
    with pytest.raises(UnreachableError, match=f"^{raw_server.url}: no answer") as error:
        call_client(raw_server.url, "search", text="red", retries=1)
    assert "\n" not in str(error.value)
    assert raw_server.connections == 2
