"""Services that misbehave on order, on real sockets of 127.0.0.1, and both clients to ask them with."""

import asyncio
import inspect
import logging
import socketserver
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import certifi
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from stbir_client import AsyncClient, Client
from tests.conftest import free_port, wait_until

CHECKPOINT = "sha256:feed"
FOUND: dict[str, Any] = {
    "hits": [
        {
            "photo_id": "shoe/7",
            "score": 0.91,
            "category": "shoe",
            "text": "a red strap",
            "uri": "/v1/photos/shoe%2F7",
        },
        {
            "photo_id": "chair/12",
            "score": 0.4,
            "category": "chair",
            "text": None,
            "uri": "/v1/photos/chair%2F12",
        },
    ],
    "gallery_version": 3,
    "checkpoint": CHECKPOINT,
    "timing_ms": {"search": 1.5, "total": 4.25},
}
Reply = Callable[[Request], Awaitable[Response]]


def problem(status: int, detail: str = "", title: str = "Title", **headers: str) -> Reply:
    """Refuse, as the endpoint does."""

    async def reply(request: Request) -> Response:
        body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return JSONResponse(body, status, sent, "application/problem+json")

    return reply


def answer(body: Any, **headers: str) -> Reply:
    """Answer with JSON, or with bytes as they are."""

    async def reply(request: Request) -> Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return Response(body, headers=sent) if isinstance(body, bytes) else JSONResponse(body, headers=sent)

    return reply


async def slow(request: Request) -> Response:
    """Answer after 5 s, or when nobody waits any longer."""
    for _ in range(100):
        await asyncio.sleep(0.05)
        if await request.is_disconnected():
            break
    return JSONResponse(FOUND)


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str  # as it was sent, escapes and all
    headers: dict[str, str]
    body: bytes
    form: dict[str, Any]
    at: float


@dataclass
class Service:
    """Replies as told, one after the other; then as usual, by path."""

    url: str
    replies: deque[Reply] = field(default_factory=deque)
    usual: dict[str, Reply] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        path = scope["raw_path"].decode()
        body = await request.body()
        self.seen.append(
            Seen(request.method, path, dict(request.headers), body, await _form(request), time.monotonic())
        )
        reply = self.replies.popleft() if self.replies else self.usual.get(path, answer(FOUND))
        await (await reply(request))(scope, receive, send)


async def _form(request: Request) -> dict[str, Any]:
    if not request.headers.get("content-type", "").startswith("multipart/"):
        return {}
    async with request.form() as form:
        return {name: v if isinstance(v, str) else await v.read() for name, v in form.items()}


@pytest.fixture(scope="package", autouse=True)
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every client reads the certificates it trusts, here one instead of all: nothing here speaks TLS."""
    mark = "-----END CERTIFICATE-----"
    path = tmp_path_factory.mktemp("client") / "one.pem"
    path.write_text(Path(certifi.where()).read_text().split(mark)[0] + mark)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(path))
        yield


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    port = free_port()
    service = Service(f"http://127.0.0.1:{port}")
    server = uvicorn.Server(uvicorn.Config(service, port=port, lifespan="off", ws="none", log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started, "the start of the service")
    yield service
    server.should_exit = True
    thread.join()


@pytest.fixture
def service(running: Service) -> Service:
    running.replies.clear()
    running.usual.clear()
    running.seen.clear()
    return running


@contextmanager
def takes(least: float, most: float) -> Iterator[None]:
    """The block takes that many seconds; `most` leaves room for a busy machine."""
    started = time.monotonic()
    yield
    assert least <= time.monotonic() - started < most


Ask = Callable[..., Any]


@pytest.fixture(params=["Client", "AsyncClient"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """`ask(url, "search", text="…", deadline=1)`: what one call of a fresh client returns or raises."""
    settings = set(inspect.signature(AsyncClient.__init__).parameters)

    def split(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        own = {name: value for name, value in given.items() if name in settings}
        return own, {name: value for name, value in given.items() if name not in settings}

    def blocking(url: str, method: str, *args: Any, **given: Any) -> Any:
        own, rest = split(given)
        with Client(url, **own) as client:
            return getattr(client, method)(*args, **rest)

    async def awaited(url: str, method: str, *args: Any, **given: Any) -> Any:
        own, rest = split(given)
        async with AsyncClient(url, **own) as client:
            return await getattr(client, method)(*args, **rest)

    def of_loop(*args: Any, **given: Any) -> Any:
        return asyncio.run(awaited(*args, **given))

    return blocking if request.param == "Client" else of_loop


@dataclass
class Wire:
    """A server of raw bytes: connection n gets `scripts[n]`, bytes and seconds of silence; then it is cut."""

    url: str
    scripts: list[list[bytes | float]] = field(default_factory=list)
    connections: int = 0


@pytest.fixture
def wire() -> Iterator[Wire]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            place, told.connections = told.connections, told.connections + 1
            self.request.recv(65536)
            for step in told.scripts[place] if place < len(told.scripts) else []:
                if isinstance(step, bytes):
                    self.request.sendall(step)
                else:
                    time.sleep(step)

    class Quiet(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            logging.getLogger(__name__).info("a client went away")

    with Quiet(("127.0.0.1", 0), Handler) as server:
        told = Wire(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield told
        server.shutdown()
        thread.join()
