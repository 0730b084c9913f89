"""The client for programs that run an event loop."""

import asyncio
import json
import random
import uuid
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from stbir_client.answer import Answer, Info, read_answer, read_info
from stbir_client.call import Call, Sketch, info_call, search_call, thumbnail_call
from stbir_client.condition import Condition
from stbir_client.errors import AnswerError, DeadlineError, ProblemError, UnreachableError
from stbir_client.line import one_line
from stbir_client.problem import read_problem, request_id
from stbir_client.service import DEADLINE_S, RETRIES, Service
from stbir_client.waiting import pause

T = TypeVar("T")


class AsyncClient:
    """Asks the stbir endpoint at `url`; a context manager, which closes its connections.

    key: sent as a bearer token. deadline: seconds for a whole call. retries: of answers 429 and 503, which
    may say when to return, and of broken connections. Calls raise what `stbir_client.errors` lists.
    """

    def __init__(
        self, url: str, *, key: str | None = None, deadline: float = DEADLINE_S, retries: int = RETRIES
    ) -> None:
        self._service = Service(url, key, deadline, retries)
        # No timeouts of its own: the deadline is the only clock.
        self._http = httpx.AsyncClient(base_url=url, headers=self._service.headers, timeout=None)

    async def search(
        self,
        sketch: Sketch | None = None,
        text: str | None = None,
        k: int = 10,
        sketch_weight: float = 0.5,
        category: str | None = None,
        photo_id: str | None = None,
        where: Sequence[Condition] = (),
    ) -> Answer:
        """The `k` photos nearest to a sketch, a text, or both; or to a photo of the gallery, `photo_id`.

        sketch: path or bytes of a picture, or strokes [[[x, y], …], …] in shares of the picture, y down.
        sketch_weight: what the sketch counts against the text, 0 to 1. category: search in this one alone.
        where: conditions on columns of the gallery (`info` names them), all to be met.
        """
        call = await asyncio.to_thread(search_call, sketch, text, k, sketch_weight, category, photo_id, where)
        return await self._ask(call, lambda response: read_answer(_json(response), request_id(response)))

    async def thumbnail(self, photo_id: str) -> bytes:
        """The encoded thumbnail of a photo: PNG or JPEG."""
        return await self._ask(thumbnail_call(photo_id), lambda response: response.content)

    async def info(self) -> Info:
        """What the endpoint serves: model, gallery, limits."""
        return await self._ask(info_call(), lambda response: read_info(_json(response)))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _ask(self, call: Call, read: Callable[[httpx.Response], T]) -> T:
        ends = asyncio.get_running_loop().time() + self._service.deadline_s
        try:
            async with asyncio.timeout_at(ends):
                return read(await self._answered(call, ends))
        except TimeoutError as error:
            late = f"{self._service.name}: no answer within {self._service.deadline_s:g} s"
            raise DeadlineError(late) from error

    async def _answered(self, call: Call, ends: float) -> httpx.Response:
        """The answer of the first attempt that succeeds. All attempts carry one request id."""
        headers, attempt = {"X-Request-Id": uuid.uuid4().hex}, 0
        while True:
            try:
                return await self._send(call, headers)
            except (ProblemError, UnreachableError) as error:
                left = ends - asyncio.get_running_loop().time()
                wait = pause(error, attempt, self._service.retries, left, random.random())
                if wait is None:
                    raise
            await asyncio.sleep(wait)
            attempt += 1

    async def _send(self, call: Call, headers: dict[str, str]) -> httpx.Response:
        try:
            response = await self._http.request(call.method, call.path, headers=headers, **call.body)
        except httpx.TransportError as error:
            reason = one_line(str(error)) or type(error).__name__
            raise UnreachableError(f"{self._service.name}: no answer ({reason})") from error
        except httpx.DecodingError as error:
            raise AnswerError(f"{self._service.name}: an answer that cannot be read ({error})") from error
        if not response.is_success:
            raise read_problem(response)
        return response


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerError(
            f"{response.url.path}: answered with something else than JSON; see the url"
        ) from error
