"""The watcher reads the spot notice of AWS, in a session of the metadata service (IMDSv2), and of Google."""

import importlib.util
import json
import urllib.error
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import ModuleType

import pytest

from tests.conftest import ROOT
from tests.http_server import Handler, Server


@pytest.fixture(scope="module")
def watcher() -> ModuleType:
    spec = importlib.util.spec_from_file_location("spot_notice", ROOT / "deploy" / "spot_notice.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Metadata(Handler):
    """The metadata service of a machine with `HttpTokens: required`."""

    notice: bytes | None = None
    num_failures = 0  # the next requests that get 503

    def do_PUT(self) -> None:
        ttl = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self.respond(200, b"session") if ttl and self.path == "/latest/api/token" else self.respond(400)

    def do_GET(self) -> None:
        if Metadata.num_failures:
            Metadata.num_failures -= 1
            return self.respond(503)
        if self.headers.get("Metadata-Flavor") == "Google":
            return self.respond(200, Metadata.notice or b"FALSE")
        if self.headers.get("X-aws-ec2-metadata-token") != "session":
            return self.respond(401)
        has_notice = self.path == "/latest/meta-data/spot/instance-action" and self.notice
        return self.respond(200, self.notice or b"") if has_notice else self.respond(404)


@pytest.fixture
def metadata() -> Iterator[str]:
    Metadata.notice, Metadata.num_failures = None, 0
    with Server(Metadata).running() as url:
        yield f"{url}/latest"


def notice(seconds: float) -> bytes:
    time = datetime.now(UTC) + timedelta(seconds=seconds)
    return json.dumps({"action": "terminate", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ")}).encode()


def test_no_notice(watcher: ModuleType, metadata: str) -> None:
    assert watcher.seconds_left(metadata) is None


def test_notice_gives_the_seconds_left(watcher: ModuleType, metadata: str) -> None:
    Metadata.notice = notice(120)
    assert watcher.seconds_left(metadata) == pytest.approx(120, abs=5)


def test_failing_service_is_logged_once_and_polled_again(
    watcher: ModuleType, metadata: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Metadata.notice, Metadata.num_failures = notice(60), 2
    assert watcher.wait_for_notice(metadata, poll_s=0.01) == pytest.approx(60, abs=5)
    assert capsys.readouterr().out.count("503") == 1


def test_notice_of_google_cloud(watcher: ModuleType, metadata: str) -> None:
    assert watcher.gcp_seconds_left(metadata) is None
    Metadata.notice = b"TRUE"
    assert watcher.wait_for_notice(metadata, read=watcher.gcp_seconds_left) == 30


def test_refusing_service_raises(watcher: ModuleType, metadata: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        watcher.seconds_left(f"{metadata}/elsewhere")
