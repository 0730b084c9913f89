"""CORS: by default no page of another origin may call the endpoint, else exactly the configured ones."""

import asyncio
from collections.abc import Sequence

import httpx
import pytest

from serve.deployments.error_mapping import at_capacity
from serve.http.api import create_app
from serve.http.cors import cors_middleware
from serve.problem import problem_app
from serve.settings import DEFAULT, read_settings
from stbir.errors import InputError
from tests.serve.test_auth import EmptyBackend

PAD = "https://pad.example.org"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
ALLOWED = "access-control-allow-origin"


def request(origins: Sequence[str], method: str, origin: str, **headers: str) -> httpx.Response:
    app = create_app(EmptyBackend(), read_settings().limits, origins=origins)
    return asyncio.run(send(app, method, {"Origin": origin, **headers}))


async def send(app, method: str, headers: dict[str, str]) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        body = {"json": {"text": "red"}} if method == "POST" else {}
        return await http.request(method, "/v1/search", headers=headers, **body)


def test_no_other_origin_is_allowed_by_default() -> None:
    assert read_settings().cors.origins == ()
    assert not [name for name in request((), "POST", PAD).headers if name.startswith("access-control")]
    assert request((), "OPTIONS", PAD, **PREFLIGHT).status_code == 405


def test_only_configured_origins_are_allowed() -> None:
    response = request([PAD], "OPTIONS", PAD, **PREFLIGHT)
    assert (response.status_code, response.headers[ALLOWED]) == (200, PAD)
    assert "authorization" in response.headers["access-control-allow-headers"].lower()
    response = request([PAD], "POST", PAD)
    assert (response.status_code, response.headers[ALLOWED]) == (200, PAD)
    assert "Retry-After" in response.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in response.headers
    for origin in ("https://other.example.org", "http://pad.example.org", f"{PAD}.evil.example", "null"):
        assert request([PAD], "OPTIONS", origin, **PREFLIGHT).status_code == 400
        assert ALLOWED not in request([PAD], "POST", origin).headers


@pytest.mark.parametrize(
    "origin", ["*", "https://*.example.org", "pad.example.org", "https://a.example/path"]
)
def test_inexact_origin_is_refused(origin: str, tmp_path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(DEFAULT.read_text().replace("origins: []", f"origins: ['{origin}']"))
    with pytest.raises(InputError, match=r"cors\.origins\.0"):
        read_settings(str(file))


def test_rejected_search_has_cors_headers() -> None:
    app = cors_middleware(problem_app(at_capacity(1)), [PAD])
    response = asyncio.run(send(app, "POST", {"Origin": PAD}))
    assert (response.status_code, response.headers[ALLOWED]) == (429, PAD)
    assert response.headers["retry-after"] == "1"
