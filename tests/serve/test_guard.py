"""Who comes in, and what the log says of it."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.environment import HAPROXY
from serve.http.access_log import HEADER, request_id
from serve.http.api import create_app
from serve.http.api_keys import new_key
from serve.http.auth import VARIABLE, Guard, guard
from serve.messages import Found, Query
from serve.settings import read_settings
from stbir.errors import InputError

SEARCH = {"text": "red strap"}


class Searcher:
    """Finds nothing, always."""

    async def search(self, query: Query) -> Found:
        return Found([], "sha256:0", 1)

    async def thumbnail(self, photo_id: str) -> bytes:
        raise RuntimeError("a fault")

    def info(self) -> dict[str, Any]:
        return {"model": {}, "gallery": None}

    async def ready(self) -> dict[str, Any]:
        return {}


def ask(kept_by: Guard, method: str, path: str, client: str = "127.0.0.1", **kwargs: Any) -> httpx.Response:
    async def one() -> httpx.Response:
        app = create_app(Searcher(), read_settings().limits, kept_by)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(client, 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
            return await http.request(method, path, **kwargs)

    return asyncio.run(one())


@pytest.mark.parametrize(
    ("client", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("127.8.8.8", {}, 200),
        ("192.0.2.7", {}, 403),
        ("", {}, 403),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, 403),
        ("127.0.0.1", {"Forwarded": "for=192.0.2.7"}, 403),
        ("127.0.0.1", {"Host": "localhost:8000"}, 200),
        ("::1", {"Host": "[::1]:8000"}, 200),
        ("127.0.0.1", {"Host": "rebound.example.org"}, 403),  # a page that had its name pointed here
    ],
)
def test_without_keys_only_this_machine_is_answered(
    client: str, headers: dict[str, str], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        kept_by = guard({})
    assert VARIABLE in caplog.text
    answer = ask(kept_by, "POST", "/v1/search", client, json=SEARCH, headers=headers)
    assert answer.status_code == status
    assert ask(kept_by, "GET", "/healthz", client, headers=headers).status_code == 200


def test_with_keys_a_key_is_what_counts(tmp_path: Path) -> None:
    secret, line = new_key("shop", 2)
    (tmp_path / "keys").write_text(line)
    kept_by = guard({VARIABLE: str(tmp_path / "keys")})
    with_key = {"Authorization": f"Bearer {secret}"}
    assert ask(kept_by, "POST", "/v1/search", json=SEARCH).status_code == 401
    for path in ("/v1/info", "/v1/photos/a"):
        assert ask(kept_by, "GET", path).status_code == 401
    for path in ("/", "/healthz", "/readyz"):
        assert ask(kept_by, "GET", path).status_code == 200
    assert ask(kept_by, "POST", "/v1/search", "192.0.2.7", json=SEARCH, headers=with_key).status_code == 200
    assert ask(kept_by, "POST", "/v1/search", json=SEARCH, headers=with_key).status_code == 200
    full = ask(kept_by, "POST", "/v1/search", json=SEARCH, headers=with_key)
    assert ask(kept_by, "GET", "/v1/info", headers=with_key).status_code == 200  # searches alone count
    assert full.status_code == 429
    assert full.headers["Retry-After"].isdigit()
    assert full.headers["content-type"] == "application/problem+json"


def test_a_file_of_keys_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="nowhere: the file of keys cannot be read"):
        guard({VARIABLE: "nowhere"})


def test_behind_haproxy_nobody_is_answered_without_keys(tmp_path: Path) -> None:
    """It connects from this machine for whoever comes, and adds no header that says for whom."""
    with pytest.raises(InputError, match=f"{VARIABLE}: not set.*python -m serve.http.api_keys"):
        guard({HAPROXY: "1"})
    (tmp_path / "keys").write_text(new_key("shop", None)[1])
    kept_by = guard({HAPROXY: "1", VARIABLE: str(tmp_path / "keys")})
    assert ask(kept_by, "POST", "/v1/search", json=SEARCH).status_code == 401


def test_a_line_a_request_without_key_words_or_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret, line = new_key("shop", None)
    (tmp_path / "keys").write_text(line)
    kept_by = guard({VARIABLE: str(tmp_path / "keys")})
    headers = {"Authorization": f"Bearer {secret}", HEADER: "mine-1"}
    with caplog.at_level(logging.INFO, "stbir.access"):
        answer = ask(kept_by, "POST", "/v1/search?secret=1", json=SEARCH, headers=headers)
        refused = ask(kept_by, "POST", "/v1/search", json=SEARCH)
        broken = ask(kept_by, "GET", "/v1/photos/a", headers=headers)
    first, second, third = (
        json.loads(record.message) for record in caplog.records if record.name == "stbir.access"
    )
    assert (first["id"], first["who"], first["status"], first["path"]) == (
        "mine-1",
        "shop",
        200,
        "/v1/search",
    )
    assert answer.headers[HEADER] == "mine-1"
    assert (second["who"], second["status"]) == (None, 401)
    assert refused.json()["request_id"] == refused.headers[HEADER] == second["id"]
    assert (third["status"], broken.status_code, broken.json()["request_id"]) == (500, 500, "mine-1")
    lines = "".join(record.message for record in caplog.records if record.name == "stbir.access")
    assert not any(word in lines for word in (secret, "red strap", "secret=1"))


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 65, "line\nbreak", "ünï"])
def test_an_id_unfit_for_a_log_is_replaced(given: str | None) -> None:
    assert request_id("ok-1.A_2") == "ok-1.A_2"
    assert request_id(given) != given
