"""An open loop of hostile requests: each starts at its time, whether or not those before it are answered."""

import asyncio
import io
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

import aiohttp
import yarl

from benchmarks.endpoint.hostile_requests import HangUp, HostileRequest

CLIENT_TIMEOUT_S = 60.0  # above the deadline of the endpoint; then an error
HUNG_UP = "hung up"
_STATUS_BYTES = len("HTTP/1.1 200")


@dataclass
class Outcomes:
    """Statuses by kind of request; an error without a status counts by its class."""

    statuses: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    unexpected: Counter[str] = field(default_factory=Counter)  # "kind: status"

    def record(self, kind: str, request: HostileRequest, status: str) -> None:
        """Count one outcome."""
        self.statuses[kind][status] += 1
        expected = {*map(str, request.statuses), str(int(HTTPStatus.TOO_MANY_REQUESTS))}
        if status not in expected and not (request.hang_up and status == HUNG_UP):
            self.unexpected[f"{kind}: {status}"] += 1


async def flood(
    url: str, key: str, requests: Iterable[tuple[str, HostileRequest]], count: int, rate: float
) -> Outcomes:
    """Send `count` requests, `rate` a second, and wait for their outcomes."""
    outcomes, start = Outcomes(), time.perf_counter()
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=CLIENT_TIMEOUT_S),
            headers={"Authorization": f"Bearer {key}"},
            skip_auto_headers={"Content-Type"},
        ) as session,
        asyncio.TaskGroup() as tasks,
    ):
        for number, (kind, request) in enumerate(itertools.islice(requests, count)):
            await asyncio.sleep(max(0, start + number / rate - time.perf_counter()))
            tasks.create_task(_send(session, url, key, kind, request, outcomes))
    return outcomes


async def _send(
    session: aiohttp.ClientSession, url: str, key: str, kind: str, request: HostileRequest, outcomes: Outcomes
) -> None:
    try:
        if request.hang_up:
            status = await asyncio.wait_for(_hang_up(url, key, request, request.hang_up), CLIENT_TIMEOUT_S)
        else:
            status = await _answer(session, url, request)
    except (aiohttp.ClientError, TimeoutError, OSError, EOFError) as error:
        status = type(error).__name__
    outcomes.record(kind, request, status)


async def _answer(session: aiohttp.ClientSession, url: str, request: HostileRequest) -> str:
    headers = {"Content-Type": request.content_type} if request.content_type else {}
    address = yarl.URL(url + request.path, encoded=True)  # as it is: some paths are invalid
    async with session.request(
        request.method, address, data=io.BytesIO(request.body), headers=headers
    ) as answer:
        await answer.read()
        return str(answer.status)


async def _hang_up(url: str, key: str, request: HostileRequest, way: HangUp) -> str:
    """The status, if the client reads so far."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(_head(address.netloc, key, request))
        writer.write(request.body[: int(way.sent * len(request.body))])
        await writer.drain()
        await asyncio.sleep(way.wait_s)
        answer = await reader.readexactly(way.read_bytes)
    finally:
        writer.transport.abort()
    return answer[:_STATUS_BYTES].decode().rpartition(" ")[2] or HUNG_UP


def _head(host: str, key: str, request: HostileRequest) -> bytes:
    lines = [
        f"{request.method} {request.path} HTTP/1.1",
        f"Host: {host}",
        f"Authorization: Bearer {key}",
        f"Content-Type: {request.content_type}",
        f"Content-Length: {len(request.body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()
