"""The health probe, run as a pod runs it, against a server that requires the token."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import ROOT


class Node(BaseHTTPRequestHandler):
    """Healthy at /raylet only."""

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        authorized = self.headers.get("Authorization") == "Bearer the-token"
        self.send_response((200 if self.path == "/raylet" else 503) if authorized else 401)
        self.end_headers()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Node)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


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
