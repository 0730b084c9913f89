"""The health probe, run as a pod runs it, against a server that requires the token."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from tests.http_server import Handler, Server


class Node(Handler):
    """Healthy at /raylet only."""

    def do_GET(self) -> None:
        authorized = self.headers.get("Authorization") == "Bearer the-token"
        self.respond((200 if self.path == "/raylet" else 503) if authorized else 401)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = Server(Node)
    with server.running():
        yield server.server_port


def is_healthy(*endpoints: str, token: str = "the-token") -> bool:
    command = [sys.executable, str(ROOT / "deploy" / "healthy.py"), *endpoints]
    done = subprocess.run(command, env={"RAY_AUTH_TOKEN": token}, capture_output=True, check=False)
    return done.returncode == 0


def test_every_endpoint_must_be_healthy(port: int) -> None:
    raylet, proxy = f"{port}/raylet", f"{port}/-/healthz"
    assert is_healthy(raylet)
    assert is_healthy(raylet, raylet)
    assert not is_healthy(raylet, proxy)
    assert not is_healthy(proxy, raylet)


def test_token_is_sent(port: int) -> None:
    assert not is_healthy(f"{port}/raylet", token="another")


def test_no_endpoint_is_an_error() -> None:
    assert not is_healthy()
