"""The watcher reads a notice as AWS gives it: by a session of its metadata service (IMDSv2)."""

import importlib.util
import json
import threading
import urllib.error
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def watcher() -> ModuleType:
    spec = importlib.util.spec_from_file_location("spot_notice", ROOT / "deploy" / "spot_notice.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Metadata(BaseHTTPRequestHandler):
    """As the service of a machine whose template says `HttpTokens: required`."""

    notice: bytes | None = None
    failing = 0  # how many questions it answers 503 from now on

    def log_message(self, *_: object) -> None: ...

    def _answer(self, code: int, body: bytes = b"") -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        lives = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self._answer(200, b"session") if lives and self.path == "/latest/api/token" else self._answer(400)

    def do_GET(self) -> None:
        if Metadata.failing:
            Metadata.failing -= 1
            return self._answer(503)
        if self.headers.get("X-aws-ec2-metadata-token") != "session":
            return self._answer(401)
        there = self.path == "/latest/meta-data/spot/instance-action" and self.notice
        return self._answer(200, self.notice or b"") if there else self._answer(404)


@pytest.fixture
def metadata() -> Iterator[str]:
    Metadata.notice, Metadata.failing = None, 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/latest"
    server.shutdown()
    server.server_close()
    thread.join()


def notice(seconds: float) -> bytes:
    gone = datetime.now(UTC) + timedelta(seconds=seconds)
    return json.dumps({"action": "terminate", "time": gone.strftime("%Y-%m-%dT%H:%M:%SZ")}).encode()


def test_a_machine_without_a_notice_goes_on(watcher: ModuleType, metadata: str) -> None:
    assert watcher.seconds_left(metadata) is None


def test_a_notice_says_how_long_is_left(watcher: ModuleType, metadata: str) -> None:
    Metadata.notice = notice(120)
    assert watcher.seconds_left(metadata) == pytest.approx(120, abs=5)


def test_a_service_that_fails_is_told_of_once_and_asked_on(
    watcher: ModuleType, metadata: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Metadata.notice, Metadata.failing = notice(60), 2
    assert watcher.await_notice(metadata, every_s=0.01) == pytest.approx(60, abs=5)
    assert capsys.readouterr().out.count("503") == 1


def test_a_service_that_refuses_is_no_machine_without_a_notice(watcher: ModuleType, metadata: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        watcher.seconds_left(f"{metadata}/elsewhere")
