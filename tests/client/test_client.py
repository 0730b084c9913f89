"""Both clients against a service on a real socket: what they ask, and what they make of its answers."""

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
from stbir_client.answer import read_answer
from tests.client.conftest import FOUND, Ask, Service, answer, problem
from tests.conftest import free_port


def test_a_search_arrives_as_it_was_asked(service: Service, ask: Ask) -> None:
    fine = {"k": 3, "sketch_weight": 0.75, "category": "shoe", "where": [Condition("price", "lt", 30)]}
    found = ask(service.url, "search", b"picture", "red strap", **fine)
    (seen,) = service.seen
    assert (seen.method, seen.path) == ("POST", "/v1/search")
    fields = {"text": "red strap", "k": "3", "sketch_weight": "0.75", "category": "shoe"}
    where = [{"column": "price", "op": "lt", "value": 30}]
    assert json.loads(seen.form.pop("where")) == where
    assert seen.form == {"sketch": b"picture", **fields}
    assert found == read_answer(FOUND, found.request_id)


def test_a_service_behind_a_path(service: Service, ask: Ask) -> None:
    ask(f"{service.url}/photos/", "search", text="red")
    assert service.seen[0].path == "/photos/v1/search"


def test_a_thumbnail_of_any_id(service: Service, ask: Ask) -> None:
    service.usual["/v1/photos/a%2Fb%20%25c"] = answer(b"\x89PNG")
    assert ask(service.url, "thumbnail", "a/b %c") == b"\x89PNG"


def test_info(service: Service, ask: Ask) -> None:
    tree = {"model": {"dim": 8}, "gallery": None, "limits": {"k": 100}, "queries": ["text"]}
    service.usual["/v1/info"] = answer(tree)
    info = ask(service.url, "info")
    assert (info.model, info.gallery, info.queries) == ({"dim": 8}, None, ("text",))


def test_nobody_there(ask: Ask) -> None:
    port = free_port()
    with pytest.raises(UnreachableError) as error:
        ask(f"http://me:secret@127.0.0.1:{port}/path", "info", retries=0)
    assert str(error.value).startswith(f"http://127.0.0.1:{port}: no answer (")


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"", b"\xff", b"[]", b"{}", b"[" * 9999])
def test_somebody_else_there(service: Service, ask: Ask, body: bytes) -> None:
    service.replies.append(answer(body))
    with pytest.raises(AnswerError, match="see the url"):
        ask(service.url, "search", text="red")


def test_an_encoding_that_is_none(service: Service, ask: Ask) -> None:
    service.replies.append(answer(b"not gzip", content_encoding="gzip"))
    with pytest.raises(AnswerError, match="cannot be read"):
        ask(service.url, "search", text="red")


def test_a_redirect_does_not_carry_the_key_away(service: Service, ask: Ask) -> None:
    service.replies.append(problem(307, location="http://elsewhere/v1/search"))
    with pytest.raises(ProblemError, match="moved to http://elsewhere/v1/search"):
        ask(service.url, "search", text="red", key="k3y")
    assert len(service.seen) == 1


def test_every_request_has_an_id_and_the_service_may_give_another(service: Service, ask: Ask) -> None:
    service.replies.append(answer(FOUND, x_request_id="theirs"))
    ids = [ask(service.url, "search", text="red").request_id for _ in range(3)]
    sent = [seen.headers["x-request-id"] for seen in service.seen]
    assert ids == ["theirs", *sent[1:]]
    assert len(set(sent)) == 3


def test_the_key_goes_to_the_service_and_nowhere_else(
    service: Service, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    service.replies.append(problem(401, "no such key"))
    with caplog.at_level(logging.DEBUG), pytest.raises(ProblemError) as error:
        ask(service.url, "search", text="red", key="s3cret")
    assert service.seen[0].headers["authorization"] == "Bearer s3cret"
    assert caplog.records
    assert "s3cret" not in caplog.text + str(error.value) + repr(error.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"url": "127.0.0.1:8000"}, "url: '127.0.0.1:8000' "),
        ({"url": "ftp://host"}, "url: 'ftp://host' must be like"),
        ({"url": "http://"}, "url: 'http://' must be like"),
        ({"url": "http://host:port"}, "url: 'http://host:port' is none"),
        ({"key": "s3cret\n"}, "key: must be"),
        ({"key": ""}, "key: must be"),
        ({"key": "schlüs3l"}, "key: must be"),
        ({"deadline": 0}, "deadline: 0"),
        ({"deadline": float("nan")}, "deadline: nan"),
        ({"retries": -1}, "retries: -1"),
    ],
)
def test_bad_settings_are_refused_at_once(settings: dict[str, Any], says: str) -> None:
    before = threading.active_count()
    for kind in (Client, AsyncClient):
        with pytest.raises(InputError) as error:
            kind(**{"url": "http://host", **settings})
        assert says in str(error.value)
        assert "s3" not in str(error.value)
    assert threading.active_count() == before


def test_many_at_once(service: Service) -> None:
    async def main() -> list[str]:
        async with AsyncClient(service.url) as client:
            answers = await asyncio.gather(*(client.search(text=f"red {place}") for place in range(40)))
        return [answer.request_id for answer in answers]

    assert len(set(asyncio.run(main()))) == 40
