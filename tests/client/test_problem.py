"""Refusals, read off whatever a service or a proxy before it may send."""

import pickle

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbir_client.errors import ProblemError
from stbir_client.problem import read_problem

REQUEST = httpx.Request("POST", "http://host/v1/search", headers={"X-Request-Id": "mine"})


def response(status: int, content: bytes | str = b"", **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, content=content, headers=sent, request=REQUEST)


def test_every_field_is_read() -> None:
    body = '{"type": "about:blank", "title": "Full", "status": 429, "detail": "all places are taken"}'
    error = read_problem(response(429, body, retry_after="7", x_request_id="theirs"))
    assert (error.status, error.title, error.detail) == (429, "Full", "all places are taken")
    assert (error.request_id, error.retry_after) == ("theirs", 7)
    assert str(error) == "429 Full: all places are taken (request theirs)"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "<html>Bad Gateway</html>",
        "[1]",
        "null",
        '{"title": 5, "detail": ["x"]}',
        b"\xff\xfe\x00",
        "[" * 9999,
    ],
)
def test_a_proxy_that_answers_something_else(content: bytes | str) -> None:
    assert str(read_problem(response(502, content))) == "502 Bad Gateway (request mine)"


def test_a_status_without_a_name() -> None:
    assert str(read_problem(response(599))) == "599 Unknown status (request mine)"


def test_where_a_service_has_moved_to_is_said() -> None:
    error = read_problem(response(308, location="https://host/v1/search"))
    assert "moved to https://host/v1/search; use that address" in str(error)


@given(st.text() | st.sampled_from(["\x1b[2J", "a\r\nb", "\u202eevil", "\x9b31m"]))
def test_one_line_that_no_terminal_obeys(text: str) -> None:
    body = httpx.Response(422, json={"title": text, "detail": text}).content
    message = str(read_problem(response(422, body)))
    assert message.isprintable()
    assert message.startswith("422 ")


@given(st.integers(300, 599), st.text(), st.text(), st.none() | st.floats(0, 9))
def test_it_survives_the_way_between_processes(
    status: int, title: str, detail: str, wait: float | None
) -> None:
    error = ProblemError(status, title, detail, "id", wait)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.__dict__) == (str(error), error.__dict__)
