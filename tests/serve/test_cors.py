"""Pages of other origins: nobody's by default, and of those named exactly these."""

import asyncio
from collections.abc import Sequence

import httpx
import pytest

from serve.deployments.error_mapping import full
from serve.http.admission import TurnedAway
from serve.http.api import create_app
from serve.http.cors import allowing
from serve.settings import DEFAULT, read_settings
from stbir.errors import InputError
from tests.serve.test_guard import Searcher

PAD = "https://pad.example.org"
ASKS = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
ALLOWED = "access-control-allow-origin"


def ask(origins: Sequence[str], method: str, origin: str, **headers: str) -> httpx.Response:
    async def one() -> httpx.Response:
        app = create_app(Searcher(), read_settings().limits, origins=origins)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            body = {"json": {"text": "red"}} if method == "POST" else {}
            return await http.request(method, "/v1/search", headers={"Origin": origin, **headers}, **body)

    return asyncio.run(one())


def test_by_default_no_page_but_the_pad_may_ask() -> None:
    assert read_settings().cors.origins == ()
    assert not [name for name in ask((), "POST", PAD).headers if name.startswith("access-control")]
    assert ask((), "OPTIONS", PAD, **ASKS).status_code == 405


def test_a_named_page_may_ask_and_no_other() -> None:
    answer = ask([PAD], "OPTIONS", PAD, **ASKS)
    assert (answer.status_code, answer.headers[ALLOWED]) == (200, PAD)
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    answer = ask([PAD], "POST", PAD)
    assert (answer.status_code, answer.headers[ALLOWED]) == (200, PAD)
    assert "Retry-After" in answer.headers["access-control-expose-headers"]
    for other in ("https://other.example.org", "http://pad.example.org", f"{PAD}.evil.example", "null"):
        assert ask([PAD], "OPTIONS", other, **ASKS).status_code == 400
        assert ALLOWED not in ask([PAD], "POST", other).headers


def test_cookies_are_never_let_through() -> None:
    assert "access-control-allow-credentials" not in ask([PAD], "POST", PAD).headers


@pytest.mark.parametrize(
    "origin", ["*", "https://*.example.org", "pad.example.org", "https://a.example/path"]
)
def test_an_origin_that_is_not_exact_is_refused(origin: str, tmp_path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(DEFAULT.read_text().replace("origins: []", f"origins: ['{origin}']"))
    with pytest.raises(InputError, match=r"cors\.origins\.0"):
        read_settings(str(file))


def test_who_is_turned_away_at_the_door_may_be_told_so() -> None:
    away = allowing(TurnedAway(full(1)), [PAD])

    async def one() -> httpx.Response:
        transport = httpx.ASGITransport(away)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            return await http.post("/v1/search", headers={"Origin": PAD})

    answer = asyncio.run(one())
    assert (answer.status_code, answer.headers[ALLOWED], answer.headers["retry-after"]) == (429, PAD, "1")
