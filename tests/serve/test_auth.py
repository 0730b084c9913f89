"""Authentication and the access log."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.deployments.error_mapping import at_capacity
from serve.environment import HAPROXY_ENV
from serve.http.access_log import HEADER, request_id
from serve.http.api import create_app
from serve.http.api_keys import ApiKeys, new_key
from serve.http.auth import API_KEYS_FILE_ENV, ApiKeyAuth, Authenticator, create_authenticator
from serve.http.gateway_errors import UNAVAILABLE
from serve.messages import Query, SearchResult
from serve.problem import SECURITY_HEADERS, problem_app
from serve.settings import read_settings
from stbir.errors import InputError

SEARCH = {"text": "red strap"}


class EmptyBackend:
    """A backend without photos; thumbnails raise an unexpected error."""

    async def search(self, query: Query) -> SearchResult:
        return SearchResult([], "sha256:0", 1)

    async def thumbnail(self, photo_id: str) -> bytes:
        raise RuntimeError("a bug")

    def info(self) -> dict[str, Any]:
        return {"model": {}, "gallery": None}

    async def ready(self) -> dict[str, Any]:
        return {}


def request(
    authenticator: Authenticator, method: str, path: str, client: str = "127.0.0.1", **kwargs: Any
) -> httpx.Response:
    async def send() -> httpx.Response:
        app = create_app(EmptyBackend(), read_settings().limits, authenticator)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(client, 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
            return await http.request(method, path, **kwargs)

    return asyncio.run(send())


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
        ("127.0.0.1", {"Host": "rebound.example.org"}, 403),  # DNS rebinding
    ],
)
def test_only_loopback_requests_are_allowed_if_no_keys_are_configured(
    client: str, headers: dict[str, str], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        authenticator = create_authenticator({})
    assert API_KEYS_FILE_ENV in caplog.text
    response = request(authenticator, "POST", "/v1/search", client, json=SEARCH, headers=headers)
    assert response.status_code == status
    assert request(authenticator, "GET", "/healthz", client, headers=headers).status_code == 200


OWN = "http://127.0.0.1:8000"
PAD = "https://pad.example.org"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": OWN}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),  # the address bar
        ({"Sec-Fetch-Site": "cross-site"}, 403),  # as of <img>, without an Origin
        ({"Sec-Fetch-Site": "same-site"}, 403),  # another port of localhost
        ({"Origin": "https://evil.example.org"}, 403),
        ({"Origin": "http://127.0.0.1:9000"}, 403),
        ({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://[", "Sec-Fetch-Site": "same-origin"}, 403),
        ({"Origin": "", "Sec-Fetch-Site": "same-origin"}, 403),
        ({"Origin": PAD, "Sec-Fetch-Site": "cross-site"}, 200),
    ],
)
def test_page_of_another_site_is_refused_if_no_keys_are_configured(
    headers: dict[str, str], status: int, tmp_path: Path
) -> None:
    """Any page that the user visits can send requests to 127.0.0.1."""
    loopback = create_authenticator({}, [PAD])
    assert request(loopback, "POST", "/v1/search", json=SEARCH, headers=headers).status_code == status
    assert request(loopback, "GET", "/v1/info", headers=headers).status_code == status
    assert request(loopback, "GET", "/v1/photos/a", headers=headers).status_code == (
        403 if status == 403 else 500
    )
    assert request(loopback, "GET", "/", headers=headers).status_code == 200
    secret, line = new_key("shop", None)
    (tmp_path / "keys").write_text(line)
    with_keys = create_authenticator({API_KEYS_FILE_ENV: str(tmp_path / "keys")})
    headers = {**headers, "Authorization": f"Bearer {secret}"}
    assert request(with_keys, "POST", "/v1/search", json=SEARCH, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/info", 200),
        ("GET", "/v1/photos/a", 500),
        ("GET", "/v1/nowhere", 404),
        ("GET", "/v1/search", 405),
        ("POST", "/v1/search", 415),
        ("GET", "/healthz", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/", 200),
        ("GET", "/web/main.js", 200),
        ("GET", "/web/nothing.js", 404),
    ],
)
def test_every_response_has_the_security_headers(method: str, path: str, status: int) -> None:
    for client in ("127.0.0.1", "192.0.2.7"):
        response = request(create_authenticator({}), method, path, client)
        assert response.status_code in (status, 403)
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cross-origin-resource-policy"] == "same-origin"


def test_rejections_and_gateway_errors_have_the_security_headers() -> None:
    async def send(app: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=OWN) as http:
            return await http.post("/v1/search")

    for app in (problem_app(at_capacity(1)), UNAVAILABLE):
        headers = asyncio.run(send(app)).headers
        assert all(headers[name] == value for name, value in SECURITY_HEADERS.items())


def test_api_key_is_required_for_v1_and_its_rate_limit_counts_searches(tmp_path: Path) -> None:
    secret, line = new_key("shop", 2)
    (tmp_path / "keys").write_text(line)
    authenticator = ApiKeyAuth(ApiKeys(str(tmp_path / "keys"), lambda: 0.0))  # no token refills meanwhile
    headers = {"Authorization": f"Bearer {secret}"}
    assert request(authenticator, "POST", "/v1/search", json=SEARCH).status_code == 401
    for path in ("/v1/info", "/v1/photos/a"):
        assert request(authenticator, "GET", path).status_code == 401
    for path in ("/", "/healthz", "/readyz"):
        assert request(authenticator, "GET", path).status_code == 200
    for client in ("192.0.2.7", "127.0.0.1"):
        response = request(authenticator, "POST", "/v1/search", client, json=SEARCH, headers=headers)
        assert response.status_code == 200
    limited = request(authenticator, "POST", "/v1/search", json=SEARCH, headers=headers)
    assert request(authenticator, "GET", "/v1/info", headers=headers).status_code == 200
    assert limited.status_code == 429
    assert limited.headers["Retry-After"].isdigit()
    assert limited.headers["content-type"] == "application/problem+json"
    thumbnail = request(authenticator, "GET", "/v1/photos/a", headers=headers)
    assert (thumbnail.status_code, "2 searches a minute" in thumbnail.text) == (429, True)


def test_missing_keys_file_is_refused() -> None:
    with pytest.raises(InputError, match="nowhere: the file of API keys cannot be read"):
        create_authenticator({API_KEYS_FILE_ENV: "nowhere"})


def test_haproxy_requires_api_keys(tmp_path: Path) -> None:
    """HAProxy connects from this machine and adds no forwarding header."""
    with pytest.raises(InputError, match=f"{API_KEYS_FILE_ENV}: not set.*python -m serve.http.api_keys"):
        create_authenticator({HAPROXY_ENV: "1"})
    (tmp_path / "keys").write_text(new_key("shop", None)[1])
    authenticator = create_authenticator({HAPROXY_ENV: "1", API_KEYS_FILE_ENV: str(tmp_path / "keys")})
    assert request(authenticator, "POST", "/v1/search", json=SEARCH).status_code == 401


def test_access_log_has_one_line_a_request_without_key_text_or_query_string(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret, line = new_key("shop", None)
    (tmp_path / "keys").write_text(line)
    authenticator = create_authenticator({API_KEYS_FILE_ENV: str(tmp_path / "keys")})
    headers = {"Authorization": f"Bearer {secret}", HEADER: "mine-1"}
    with caplog.at_level(logging.INFO, "stbir.access"):
        response = request(authenticator, "POST", "/v1/search?secret=1", json=SEARCH, headers=headers)
        unauthorized = request(authenticator, "POST", "/v1/search", json=SEARCH)
        failed = request(authenticator, "GET", "/v1/photos/a", headers=headers)
    lines = [record.message for record in caplog.records if record.name == "stbir.access"]
    success_line, unauthorized_line, failed_line = map(json.loads, lines)
    fields = ("id", "who", "status", "path")
    assert [success_line[name] for name in fields] == ["mine-1", "shop", 200, "/v1/search"]
    assert response.headers[HEADER] == "mine-1"
    assert (unauthorized_line["who"], unauthorized_line["status"]) == (None, 401)
    assert unauthorized.json()["request_id"] == unauthorized.headers[HEADER] == unauthorized_line["id"]
    assert (failed_line["status"], failed.status_code) == (500, 500)
    assert failed.json()["request_id"] == failed.headers[HEADER] == "mine-1"
    assert not any(text in "".join(lines) for text in (secret, "red strap", "secret=1"))


@pytest.mark.parametrize("header", [None, "", "a b", "x" * 65, "line\nbreak", "ünï"])
def test_unsafe_request_id_is_replaced(header: str | None) -> None:
    assert request_id("ok-1.A_2") == "ok-1.A_2"
    assert request_id(header) != header
