"""Both clients against a fake endpoint: requests, answers and errors."""

import asyncio
import json
import logging
import threading
from typing import Any

import pytest

from stbir_client import (
    AnswerError,
    AsyncClient,
    Client,
    Condition,
    InputError,
    ProblemError,
    UnreachableError,
)
from stbir_client.answer import parse_answer
from tests.client.conftest import SEARCH_RESPONSE, CallClient, FakeServer, problem, respond
from tests.conftest import free_port


def test_search_sends_all_fields(server: FakeServer, call_client: CallClient) -> None:
    options = {"k": 3, "sketch_weight": 0.75, "category": "shoe", "where": [Condition("price", "lt", 30)]}
    answer = call_client(server.url, "search", b"image", "red strap", **options)
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/search")
    fields = {"text": "red strap", "k": "3", "sketch_weight": "0.75", "category": "shoe"}
    where = [{"column": "price", "op": "lt", "value": 30}]
    assert json.loads(request.form.pop("where")) == where
    assert request.form == {"sketch": b"image", **fields}
    assert answer == parse_answer(SEARCH_RESPONSE, answer.request_id)


def test_endpoint_url_with_a_path(server: FakeServer, call_client: CallClient) -> None:
    call_client(f"{server.url}/photos/", "search", text="red")
    assert server.requests[0].path == "/photos/v1/search"


def test_a_gallery_has_paths_of_its_own(server: FakeServer, call_client: CallClient) -> None:
    call_client(server.url, "search", text="red", gallery="shoes")
    server.defaults["/v1/galleries/shoes/photos/a"] = respond(b"bytes")
    assert call_client(f"{server.url}/photos/", "search", text="red", gallery="shoes").hits
    assert call_client(server.url, "thumbnail", "a", gallery="shoes") == b"bytes"
    call_client(server.url, "search", text="red", gallery="default")
    assert [request.path for request in server.requests] == [
        "/v1/galleries/shoes/search",
        "/photos/v1/galleries/shoes/search",
        "/v1/galleries/shoes/photos/a",
        "/v1/galleries/default/search",
    ]


def test_thumbnail_id_is_escaped(server: FakeServer, call_client: CallClient) -> None:
    server.defaults["/v1/photos/a%2Fb%20%25c"] = respond(b"\x89PNG")
    assert call_client(server.url, "thumbnail", "a/b %c") == b"\x89PNG"


def test_info(server: FakeServer, call_client: CallClient) -> None:
    tree = {"model": {"dim": 8}, "gallery": None, "limits": {"k": 100}, "queries": ["text"]}
    server.defaults["/v1/info"] = respond(tree)
    info = call_client(server.url, "info")
    assert (info.model, info.gallery, info.queries) == ({"dim": 8}, None, ("text",))


def test_unreachable_endpoint(call_client: CallClient) -> None:
    port = free_port()
    with pytest.raises(UnreachableError) as error:
        call_client(f"http://me:secret@127.0.0.1:{port}/path", "info", retries=0)
    assert str(error.value).startswith(f"http://127.0.0.1:{port}: no answer (")


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"", b"\xff", b"[]", b"{}", b"[" * 9999])
def test_answer_of_another_service(server: FakeServer, call_client: CallClient, body: bytes) -> None:
    server.replies.append(respond(body))
    with pytest.raises(AnswerError, match="check the url"):
        call_client(server.url, "search", text="red")


def test_invalid_content_encoding(server: FakeServer, call_client: CallClient) -> None:
    server.replies.append(respond(b"not gzip", content_encoding="gzip"))
    with pytest.raises(AnswerError, match="cannot be decoded"):
        call_client(server.url, "search", text="red")


def test_redirects_are_not_followed(server: FakeServer, call_client: CallClient) -> None:
    server.replies.append(problem(307, location="http://elsewhere/v1/search"))
    with pytest.raises(ProblemError, match="moved to http://elsewhere/v1/search"):
        call_client(server.url, "search", text="red", key="k3y")
    assert len(server.requests) == 1


def test_request_id_of_the_endpoint_has_precedence(server: FakeServer, call_client: CallClient) -> None:
    server.replies.append(respond(SEARCH_RESPONSE, x_request_id="theirs"))
    ids = [call_client(server.url, "search", text="red").request_id for _ in range(3)]
    sent = [request.headers["x-request-id"] for request in server.requests]
    assert ids == ["theirs", *sent[1:]]
    assert len(set(sent)) == 3


def test_key_is_neither_logged_nor_in_errors(
    server: FakeServer, call_client: CallClient, caplog: pytest.LogCaptureFixture
) -> None:
    server.replies.append(problem(401, "no such key"))
    with caplog.at_level(logging.DEBUG), pytest.raises(ProblemError) as error:
        call_client(server.url, "search", text="red", key="s3cret")
    assert server.requests[0].headers["authorization"] == "Bearer s3cret"
    assert caplog.records
    assert "s3cret" not in caplog.text + str(error.value) + repr(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "127.0.0.1:8000"}, "url: '127.0.0.1:8000' "),
        ({"url": "ftp://host"}, "url: 'ftp://host' must be like"),
        ({"url": "http://"}, "url: 'http://' must be like"),
        ({"url": "http://host:port"}, "url: 'http://host:port' is not a URL"),
        ({"key": "s3cret\n"}, "key: must be"),
        ({"key": ""}, "key: must be"),
        ({"key": "schlüs3l"}, "key: must be"),
        ({"deadline": 0}, "deadline: 0"),
        ({"deadline": float("nan")}, "deadline: nan"),
        ({"retries": -1}, "retries: -1"),
        *(({"gallery": name}, "gallery: ") for name in ("", "a/b", "..", "a?k=1", "-a")),
    ],
)
def test_invalid_settings_raise(settings: dict[str, Any], message: str) -> None:
    thread_count = threading.active_count()
    for client_class in (Client, AsyncClient):
        with pytest.raises(InputError) as error:
            client_class(**{"url": "http://host", **settings})
        assert message in str(error.value)
        assert "s3" not in str(error.value)
    assert threading.active_count() == thread_count


def test_concurrent_searches(server: FakeServer) -> None:
    async def main() -> list[str]:
        async with AsyncClient(server.url) as client:
            answers = await asyncio.gather(*(client.search(text=f"red {n}") for n in range(40)))
        return [answer.request_id for answer in answers]

    assert len(set(asyncio.run(main()))) == 40
