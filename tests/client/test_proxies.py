"""Proxies of the environment: this machine is asked directly, and an error names the proxy."""

import httpx
import pytest

from stbir_client import Client, InputError, UnreachableError
from stbir_client.proxies import is_loopback, proxy_of
from tests.client.conftest import CallClient, FakeServer
from tests.conftest import free_port

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a proxy that does not answer, set in the environment."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("http_proxy", f"http://me:s3cret@{address}")
    return address


def test_requests_to_loopback_use_no_proxy(server: FakeServer, call_client: CallClient, proxy: str) -> None:
    for host in ("127.0.0.1", "localhost"):
        url = server.url.replace("127.0.0.1", host)
        assert call_client(url, "search", text="red", retries=0).hits
    assert len(server.requests) == 2


def test_connection_error_names_the_proxy(call_client: CallClient, proxy: str) -> None:
    with pytest.raises(UnreachableError) as error:
        call_client("http://photos.example.org", "info", retries=0)
    assert str(error.value).startswith(
        f"http://photos.example.org through the proxy http://{proxy}: no answer ("
    )
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("value", ["ftp://proxy:1", "http://host:port"])
def test_unusable_proxy_is_refused_for_other_machines_only(
    proxy: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", value)
    with pytest.raises(InputError, match=r"^http_proxy: cannot be used \(.*correct or unset it$"):
        Client("http://photos.example.org")
    Client("http://127.0.0.1:9").close()


LOOPBACK = ("127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST", "a.localhost", "localhost.")
REMOTE = ("10.0.0.1", "0.0.0.0", "notlocalhost", "localhost.example.org", "::2", "127.example.org")


def test_loopback_hosts() -> None:
    assert all(map(is_loopback, LOOPBACK))
    assert not any(map(is_loopback, REMOTE))


def test_no_proxy_is_respected(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "example.org")
    assert proxy_of(httpx.URL("http://photos.example.org")) == ""
    assert proxy_of(httpx.URL("https://photos.example.com")) == ""
    assert proxy_of(httpx.URL("http://photos.example.com")) == f"http://{proxy}"
