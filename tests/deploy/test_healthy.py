"""The probe, run as a pod runs it, against a server that asks for the token."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import ROOT


class Node(BaseHTTPRequestHandler):
    """Well at /raylet, and at nothing else."""

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == "Bearer the-token"
        self.send_response((200 if self.path == "/raylet" else 503) if known else 401)
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


def healthy(*places: str, token: str = "the-token") -> bool:
    command = [sys.executable, str(ROOT / "deploy" / "healthy.py"), *places]
    done = subprocess.run(command, env={"RAY_AUTH_TOKEN": token}, capture_output=True, check=False)
    return done.returncode == 0


def test_every_place_must_be_well(port: int) -> None:
    raylet, proxy = f"{port}/raylet", f"{port}/-/healthz"
    assert healthy(raylet)
    assert healthy(raylet, raylet)
    assert not healthy(raylet, proxy)
    assert not healthy(proxy, raylet)


def test_the_token_is_sent(port: int) -> None:
    assert not healthy(f"{port}/raylet", token="another")


def test_nothing_asked_is_nothing_well() -> None:
    assert not healthy()
