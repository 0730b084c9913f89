"""The asyncio client."""

import asyncio
import json
import random
import uuid
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from stbir_client.answer import Answer, Explanation, Info, parse_answer, parse_explanation, parse_info
from stbir_client.call import Call, explain_call, info_call, search_call, thumbnail_call
from stbir_client.errors import AnswerError, DeadlineError, ProblemError, UnreachableError
from stbir_client.filters import Condition
from stbir_client.line import one_line
from stbir_client.problem import parse_problem, request_id
from stbir_client.proxies import connect
from stbir_client.service import DEADLINE_S, RETRIES, Service
from stbir_client.sketch import Sketch
from stbir_client.steering import Negative
from stbir_client.waiting import retry_delay

T = TypeVar("T")


class AsyncClient:
    """Client of the stbir endpoint at `url`; a context manager that closes its connections.

    key: API key, sent as a bearer token. deadline: seconds for a call with its retries. retries: how often to
    retry after status 429 or 503 or a broken connection. gallery: the name of a gallery of the endpoint;
    None: its default one. Calls raise the errors of `stbir_client.errors`.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        deadline: float = DEADLINE_S,
        retries: int = RETRIES,
        gallery: str | None = None,
    ) -> None:
        self._service = Service(url, key, deadline, retries, gallery)
        self._http = connect(url, self._service.headers)

    async def search(
        self,
        sketch: Sketch | None = None,
        text: str | None = None,
        k: int = 10,
        sketch_weight: float = 0.5,
        category: str | None = None,
        photo_id: str | None = None,
        where: Sequence[Condition] = (),
        *,
        without: Sequence[str | Negative] = (),
        like: Sequence[str] = (),
        unlike: Sequence[str] = (),
        group: bool = False,
        min_match: float = 0.0,
    ) -> Answer:
        """Search for the `k` photos most similar to a sketch, a text, or both.

        sketch: path or bytes of an image, or strokes [[[x, y], …], …] from 0 to 1, y down.
        sketch_weight: weight of the sketch against the text, 0 to 1. category: search only in it.
        photo_id: a photo of the gallery in place of the sketch. where: filters on columns, combined with AND;
        `info` lists the columns. without: what a hit should not show, texts or Negatives.
        like, unlike: ids of photos marked as relevant or not, which move the query and are no hits; `like`
        alone is a query too. group: near-duplicates form one hit, with `count` and `duplicates`.
        min_match: least probability that a hit is the photo meant, if the endpoint knows it.
        """
        query = (sketch, text, k, sketch_weight, category, photo_id, where)
        call = await asyncio.to_thread(search_call, *query, without, like, unlike, group, min_match)
        return await self._send(call, lambda response: parse_answer(_json(response), request_id(response)))

    async def explain(
        self,
        photo_id: str,
        sketch: Sketch | None = None,
        text: str | None = None,
        sketch_weight: float = 0.5,
    ) -> Explanation:
        """Why a photo is a hit of a sketch, a text, or both: what each cell and each word contributed."""
        call = await asyncio.to_thread(explain_call, photo_id, sketch, text, sketch_weight)
        return await self._send(call, lambda response: parse_explanation(_json(response)))

    async def thumbnail(self, photo_id: str) -> bytes:
        """The thumbnail of a photo, as PNG or JPEG."""
        return await self._send(thumbnail_call(photo_id), lambda response: response.content)

    async def info(self) -> Info:
        """What the endpoint serves: model, gallery, limits."""
        return await self._send(info_call(), lambda response: parse_info(_json(response)))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _send(self, call: Call, parse: Callable[[httpx.Response], T]) -> T:
        deadline = asyncio.get_running_loop().time() + self._service.deadline_s
        try:
            async with asyncio.timeout_at(deadline):
                return parse(await self._retry(call, deadline))
        except TimeoutError as error:
            message = f"{self._service.name}: no answer within {self._service.deadline_s:g} s"
            raise DeadlineError(message) from error

    async def _retry(self, call: Call, deadline: float) -> httpx.Response:
        """The response of the first successful attempt. All attempts have the same request id."""
        headers, attempt = {"X-Request-Id": uuid.uuid4().hex}, 0
        while True:
            try:
                return await self._attempt(call, headers)
            except (ProblemError, UnreachableError) as error:
                remaining_s = deadline - asyncio.get_running_loop().time()
                delay_s = retry_delay(error, attempt, self._service.retries, remaining_s, random.random())
                if delay_s is None:
                    raise
            await asyncio.sleep(delay_s)
            attempt += 1

    async def _attempt(self, call: Call, headers: dict[str, str]) -> httpx.Response:
        try:
            path = self._service.path(call.path)
            response = await self._http.request(call.method, path, headers=headers, **call.body)
        except httpx.TransportError as error:
            reason = one_line(str(error)) or type(error).__name__
            raise UnreachableError(f"{self._service.route}: no answer ({reason})") from error
        except httpx.DecodingError as error:
            raise AnswerError(f"{self._service.name}: the answer cannot be decoded ({error})") from error
        if not response.is_success:
            raise parse_problem(response)
        return response


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerError(f"{response.url.path}: the answer is not JSON; check the url") from error
