"""Reading photos: limits of time and size, and redirects."""

import os
import time
from collections.abc import Iterator, Set
from pathlib import Path
from threading import Event

import fsspec
import pytest

from stbir.catalogue import reading
from stbir.catalogue.photo import PHOTO_UNREACHABLE, Photo, PhotoRef
from stbir.data.validation import Fault
from stbir.storage import fetch, retry
from tests.data.image_files import png
from tests.http_server import Handler, Server

SCHEMES = fetch.DEFAULT_SCHEMES | {"http"}


class Photos(Handler):
    """`/hang` never answers, `/drip` sends a byte now and then, `/large` has 2 MiB, `/to?URL` redirects."""

    closing = Event()

    def do_GET(self) -> None:
        if self.path == "/hang":
            self.closing.wait(30)
            return
        path, _, location = self.path.partition("?")
        body = png() if path == "/photo" else bytes(2 * 2**20)
        self.send_response(302 if location else 200)
        self.send_header("Content-Length", "0" if location else str(len(body)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        if path == "/drip":
            while not self.closing.wait(0.1):
                self.wfile.write(b"x")
        elif not location:
            self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[str]:
    Photos.closing.clear()
    with Server(Photos).running() as url:
        yield url
        Photos.closing.set()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "INITIAL_WAIT_S", 1e-3)


def read(uri: str) -> Photo | Fault:
    [item] = reading.read_photos([PhotoRef("x", "", uri)], SCHEMES)
    return item


@pytest.mark.parametrize("path", ["hang", "drip"])
def test_a_server_that_does_not_finish_costs_a_bounded_time(
    server: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "TIMEOUT_S", 1.0)
    start = time.monotonic()
    fault = read(f"{server}/{path}")
    assert time.monotonic() - start < 3
    assert isinstance(fault, Fault)
    assert (fault.reason, fault.detail) == (PHOTO_UNREACHABLE, "TimeoutError: no complete answer in time")


def test_all_reads_of_a_photo_share_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, timeouts = tmp_path / "no_suffix", []
    path.write_bytes(png())

    def fetch_second_time(uri: str, start: int, end: int, schemes: Set[str], timeout_s: float) -> bytes:
        timeouts.append(timeout_s)
        if len(timeouts) % 2:
            raise TimeoutError
        return fetch.fetch(uri, start, end, schemes, timeout_s)

    monkeypatch.setattr(reading, "fetch", fetch_second_time)
    [photo] = reading.read_photos([PhotoRef("x", "", str(path), check_content=True)])
    assert isinstance(photo, Photo)
    assert timeouts == sorted(set(timeouts), reverse=True)
    assert len(timeouts) == 4  # two attempts to read the first bytes, two to read all


def test_a_large_body_is_not_read_to_its_end(
    server: str, tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 2**20)
    (tmp_path / "large").write_bytes(bytes(2 * 2**20))
    fsspec.filesystem("s3").pipe_file(f"{s3}/large", bytes(2 * 2**20))
    for uri in (f"{server}/large", str(tmp_path / "large"), f"file://{tmp_path}/large", f"{s3}/large"):
        fault = read(uri)
        assert isinstance(fault, Fault)
        assert (fault.reason, fault.detail) == ("photo cannot be opened", "larger than 1 MiB")


def test_a_device_and_a_named_pipe_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", str(tmp_path / "pipe")):
        fault = read(path)
        assert isinstance(fault, Fault)
        assert (fault.reason, fault.detail) == ("photo missing", f"IsADirectoryError: {path} is not a file")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("/photo", "a private address"),
        ("http://127.0.0.1:{port}/photo", "a private address"),
        ("http://localhost:{port}/photo", "a private address"),
        ("http://2130706433:{port}/photo", "a private address"),
        ("http://169.254.169.254/latest/meta-data", "a private address"),
        ("http://10.0.0.1/x", "a private address"),
        ("file:///etc/hostname", "not one of http, https"),
        ("s3://bucket/x", "not one of http, https"),
        ("ftp://127.0.0.1/x", "not one of http, https"),
    ],
)
def test_redirects_to_private_addresses_and_other_schemes_are_refused(
    server: str, location: str, message: str
) -> None:
    location = location.replace("{port}", server.rpartition(":")[2])
    fault = read(f"{server}/to?{location}")
    assert isinstance(fault, Fault)
    assert fault.reason == "photo cannot be opened"
    assert message in (fault.detail or "")


def test_a_redirect_to_a_public_address_is_followed(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_is_public", lambda _: True)
    assert read(f"{server}/to?/photo") == Photo("x", "", (), png())


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        *((address, True) for address in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8")),
        *((address, False) for address in ("127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254")),
        *((address, False) for address in ("0.0.0.0", "::1", "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1")),
        *((address, False) for address in ("100.64.0.1", "::")),
    ],
)
def test_public_addresses(address: str, is_public: bool) -> None:
    assert fetch._is_public(address) is is_public
