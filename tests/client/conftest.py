"""A fake endpoint on a real socket of 127.0.0.1 with configurable replies, and a fixture for both clients."""

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
SEARCH_RESPONSE: dict[str, Any] = {
    "hits": [
        {
            **{"photo_id": f"{category}/{n}", "score": score, "category": category, "text": text, "uri": uri},
            **{"count": 1, "duplicates": [], "match": None},
        }
        for category, n, score, text, uri in (
            ("shoe", 7, 0.91, "a red strap", "/v1/photos/shoe%2F7"),
            ("chair", 12, 0.4, None, "/v1/photos/chair%2F12"),
        )
    ],
    "gallery_version": 3,
    "checkpoint": CHECKPOINT,
    "timing_ms": {"search": 1.5, "total": 4.25},
}
Reply = Callable[[Request], Awaitable[Response]]


def problem(status: int, detail: str = "", title: str = "Title", **headers: str) -> Reply:
    """Reply with problem details, as the endpoint does."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}

    async def reply(request: Request) -> Response:
        return JSONResponse(body, status, _header_names(headers), "application/problem+json")

    return reply


def respond(body: Any, **headers: str) -> Reply:
    """Reply with JSON, or with raw bytes."""

    async def reply(request: Request) -> Response:
        response = Response if isinstance(body, bytes) else JSONResponse
        return response(body, headers=_header_names(headers))

    return reply


def _header_names(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


async def respond_slowly(request: Request) -> Response:
    """Reply after 5 s, or when the client disconnects."""
    for _ in range(100):
        await asyncio.sleep(0.05)
        if await request.is_disconnected():
            break
    return JSONResponse(SEARCH_RESPONSE)


@dataclass(frozen=True)
class ReceivedRequest:
    """A request as the server received it. `path`: with its escapes."""

    method: str
    path: str
    headers: dict[str, str]
    form: dict[str, Any]
    time_s: float


@dataclass
class FakeServer:
    """An ASGI application that sends `replies` in order, then the default reply of the path."""

    url: str = ""
    replies: deque[Reply] = field(default_factory=deque)
    defaults: dict[str, Reply] = field(default_factory=dict)
    requests: list[ReceivedRequest] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        path, headers = scope["raw_path"].decode(), dict(request.headers)
        form = await _form(request)
        self.requests.append(ReceivedRequest(request.method, path, headers, form, time.monotonic()))
        reply = self.replies.popleft() if self.replies else self.defaults.get(path, respond(SEARCH_RESPONSE))
        await (await reply(request))(scope, receive, send)


async def _form(request: Request) -> dict[str, Any]:
    if not request.headers.get("content-type", "").startswith("multipart/"):
        await request.body()
        return {}
    async with request.form() as form:
        return {name: v if isinstance(v, str) else await v.read() for name, v in form.items()}


@pytest.fixture(scope="package", autouse=True)
def single_ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One CA certificate in place of the bundle, which each client would parse. The tests use no TLS."""
    end = "-----END CERTIFICATE-----"
    path = tmp_path_factory.mktemp("client") / "ca.pem"
    path.write_text(Path(certifi.where()).read_text().split(end)[0] + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(path))
        yield


@contextmanager
def serve_app(app: Any) -> Iterator[str]:
    """Serve an ASGI application with uvicorn in a thread; yields its URL."""
    port = free_port()
    config = uvicorn.Config(app, port=port, lifespan="off", ws="none", log_config=None)
    http_server = uvicorn.Server(config)
    thread = threading.Thread(target=http_server.run)
    thread.start()
    try:
        wait_until(lambda: http_server.started, "the start of the server")
        yield f"http://127.0.0.1:{port}"
    finally:
        http_server.should_exit = True
        thread.join()


@pytest.fixture(scope="package")
def shared_server() -> Iterator[FakeServer]:
    server = FakeServer()
    with serve_app(server) as server.url:
        yield server


@pytest.fixture
def server(shared_server: FakeServer) -> FakeServer:
    shared_server.replies.clear()
    shared_server.defaults.clear()
    shared_server.requests.clear()
    return shared_server


@contextmanager
def expect_duration(min_s: float, max_s: float) -> Iterator[None]:
    """The block takes between `min_s` and `max_s`, which allows for a busy machine."""
    start = time.monotonic()
    yield
    assert min_s <= time.monotonic() - start < max_s


CallClient = Callable[..., Any]


@pytest.fixture(params=["Client", "AsyncClient"])
def call_client(request: pytest.FixtureRequest) -> CallClient:
    """`call_client(url, "search", text="…", deadline=1)`: the result of one call of a new client."""
    options = set(inspect.signature(AsyncClient.__init__).parameters)

    def pop_settings(kwargs: dict[str, Any]) -> dict[str, Any]:
        """Remove and return the arguments of the constructor."""
        return {name: kwargs.pop(name) for name in options & kwargs.keys()}

    def call_blocking(url: str, method: str, *args: Any, **kwargs: Any) -> Any:
        with Client(url, **pop_settings(kwargs)) as client:
            return getattr(client, method)(*args, **kwargs)

    async def call_async(url: str, method: str, *args: Any, **kwargs: Any) -> Any:
        async with AsyncClient(url, **pop_settings(kwargs)) as client:
            return await getattr(client, method)(*args, **kwargs)

    if request.param == "Client":
        return call_blocking
    return lambda *args, **kwargs: asyncio.run(call_async(*args, **kwargs))


@dataclass
class RawServer:
    """A server that sends connection n the bytes of `scripts[n]`, with pauses in seconds, and closes it."""

    url: str
    scripts: list[list[bytes | float]] = field(default_factory=list)
    connections: int = 0


@pytest.fixture
def raw_server() -> Iterator[RawServer]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            index, state.connections = state.connections, state.connections + 1
            self.request.recv(65536)
            for step in state.scripts[index] if index < len(state.scripts) else []:
                if isinstance(step, bytes):
                    self.request.sendall(step)
                else:
                    time.sleep(step)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            logging.getLogger(__name__).info("the client disconnected")

    with Server(("127.0.0.1", 0), Handler) as tcp_server:
        state = RawServer(f"http://127.0.0.1:{tcp_server.server_address[1]}")
        thread = threading.Thread(target=tcp_server.serve_forever, args=(0.02,))
        thread.start()
        yield state
        tcp_server.shutdown()
        thread.join()
