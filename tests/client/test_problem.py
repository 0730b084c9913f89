"""Parsing of error responses, also of proxies."""

import pickle

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbir_client.errors import ProblemError
from stbir_client.problem import parse_problem

REQUEST = httpx.Request("POST", "http://host/v1/search", headers={"X-Request-Id": "mine"})


def response(status: int, content: bytes | str = b"", **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, content=content, headers=names, request=REQUEST)


def test_all_fields_are_parsed() -> None:
    body = '{"type": "about:blank", "title": "Full", "status": 429, "detail": "the queue is full"}'
    error = parse_problem(response(429, body, retry_after="7", x_request_id="theirs"))
    assert (error.status, error.title, error.detail) == (429, "Full", "the queue is full")
    assert (error.request_id, error.retry_after) == ("theirs", 7)
    assert str(error) == "429 Full: the queue is full (request theirs)"


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
def test_bodies_without_problem_details(content: bytes | str) -> None:
    assert str(parse_problem(response(502, content))) == "502 Bad Gateway (request mine)"


def test_unregistered_status() -> None:
    assert str(parse_problem(response(599))) == "599 Unknown status (request mine)"


def test_redirect_names_its_target() -> None:
    error = parse_problem(response(308, location="https://host/v1/search"))
    assert "moved to https://host/v1/search; use that address" in str(error)


@given(st.text() | st.sampled_from(["\x1b[2J", "a\r\nb", "\u202eevil", "\x9b31m"]))
def test_message_is_one_line_without_escape_sequences(text: str) -> None:
    body = httpx.Response(422, json={"title": text, "detail": text}).content
    message = str(parse_problem(response(422, body)))
    assert message.isprintable()
    assert message.startswith("422 ")


@given(st.integers(300, 599), st.text(), st.text(), st.none() | st.floats(0, 9))
def test_error_can_be_pickled(status: int, title: str, detail: str, retry_after: float | None) -> None:
    error = ProblemError(status, title, detail, "id", retry_after)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.__dict__) == (str(error), error.__dict__)
