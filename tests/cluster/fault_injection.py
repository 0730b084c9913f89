"""A proxy in front of an S3 server that injects faults: 503, delays, truncated responses."""

import http.client
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.http_server import Handler, Server

DELAY_S = 1.0
FAULTS = ("busy", "slow", "cut")


class _Proxy(Handler):
    protocol_version = "HTTP/1.1"
    server: "FaultyServer"

    def do_GET(self) -> None:
        fault = self.server.draw_fault()
        if fault == "busy":
            self._body()
            self._answer(503, [("Content-Type", "application/xml")], _SLOW_DOWN)
            return
        if fault == "slow":
            time.sleep(DELAY_S)
        status, headers, body = self._forwarded()
        self._answer(status, headers, body, cut=fault == "cut" and self.command != "HEAD")

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def _forwarded(self) -> tuple[int, list[tuple[str, str]], bytes]:
        body = self._body()
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
        connection = http.client.HTTPConnection(self.server.upstream)
        connection.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, [(k, v) for k, v in answer.getheaders() if k.lower() not in _HOP], data

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if self.command == "HEAD" or name.lower() != "content-length":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection |= cut


_HOP = {"connection", "transfer-encoding", "expect", "keep-alive"}
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class FaultyServer(Server):
    """The proxy. `share` of the requests, which may change, gets a fault."""

    def __init__(self, upstream: str, share: float) -> None:
        super().__init__(_Proxy)
        self.upstream, self.share = upstream, share
        self._random = random.Random(0)
        self.counts: Counter[str] = Counter()

    def draw_fault(self) -> str:
        """Draw the fault of the next request."""
        is_faulty = self._random.random() < self.share
        fault = self._random.choice(FAULTS) if is_faulty else "good"
        self.counts[fault] += 1
        return fault

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def faulty_server(endpoint: str, share: float) -> Iterator[FaultyServer]:
    """The running proxy."""
    server = FaultyServer(urlsplit(endpoint).netloc, share)
    with server.running():
        yield server


@contextmanager
def faulty_proxy(endpoint: str, share: float) -> Iterator[tuple[str, Counter[str]]]:
    """The URL of the proxy, and the number of requests by fault."""
    with faulty_server(endpoint, share) as server:
        yield server.url, server.counts
