"""A client of OpenAI-compatible chat endpoints (vLLM, Ollama, hosted ones) that waits where waiting helps."""

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any, Literal, Self

import httpx
from pydantic import SecretStr

from stbir.captioning.answer_store import Usage
from stbir.errors import InputError

Form = Literal["schema", "json", "text"]
FORMS: tuple[Form, ...] = ("schema", "json", "text")
MOST_TOKENS = 400  # of an answer: a caption takes about sixty
_FIRST_S, _LONGEST_S = 0.5, 30.0
_KEY_REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN}
_MAY_PASS = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}
_MOST_UNANSWERED = 8  # in a row: it is the endpoint, and no photo
_SHOWN = 200  # letters of what an endpoint says


@dataclass(frozen=True)
class Endpoint:
    """Where to ask and how. `key` shows in no message; `form` is how the form of an answer is asked for.

    timeout: seconds for one call. patience: seconds for all attempts at one question.
    """

    url: str
    model: str
    key: SecretStr | None = None
    form: Form = "schema"
    timeout: float = 120.0
    patience: float = 300.0

    def headers(self) -> dict[str, str]:
        """What every call carries."""
        return {} if self.key is None else {"Authorization": f"Bearer {self.key.get_secret_value()}"}

    def hidden(self, text: str) -> str:
        """What the endpoint said, in one short line without the key."""
        line = " ".join(text.split())
        return (line.replace(self.key.get_secret_value(), "***") if self.key else line)[:_SHOWN]


@dataclass(frozen=True)
class Reply:
    """An answer as it came."""

    text: str
    usage: Usage


class NoReply(Exception):
    """This question got no answer; others may. `reason` is one of few."""

    def __init__(self, reason: Literal["refused", "no answer"], detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class _Trouble(Exception):
    """An attempt that failed and may be repeated; `after` seconds where the endpoint says when."""

    def __init__(self, what: str, after: float | None = None, unreachable: bool = False) -> None:
        super().__init__(what)
        self.what, self.after, self.unreachable = what, after, unreachable


@dataclass
class Chat:
    """The calls of one process. Where one is told to slow down, all of them wait; where none is answered,
    those that have not begun do not try for as long again."""

    endpoint: Endpoint
    schema: Mapping[str, Any]
    _not_before: float = field(default=0.0, init=False)
    _unanswered: int = field(default=0, init=False)  # in a row
    _lost: Exception | None = field(default=None, init=False)

    async def __aenter__(self) -> Self:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx.AsyncClient(
            headers=self.endpoint.headers(), timeout=self.endpoint.timeout, limits=limits
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def ask(self, messages: list[dict[str, Any]], name: str) -> Reply:
        """The answer; `name` is the same for the same question, for endpoints that count it once.

        Raises NoReply for this question alone, InputError where none would be answered.
        """
        if self._lost:
            raise self._lost
        try:
            reply = await self._patiently(messages, name)
        except (NoReply, InputError) as error:
            self._learn(error)
            raise
        self._unanswered = 0
        return reply

    def _learn(self, error: NoReply | InputError) -> None:
        """From a question that got no answer, for those that have not begun."""
        if isinstance(error, InputError):
            self._lost = error
        elif error.reason == "no answer":
            self._unanswered += 1
            if self._unanswered >= _MOST_UNANSWERED:
                said = f"not asked: {self._unanswered} before it got none, the last: {error.detail}"
                self._lost = NoReply("no answer", said)

    async def _patiently(self, messages: list[dict[str, Any]], name: str) -> Reply:
        deadline = time.monotonic() + self.endpoint.patience
        attempt = 0
        while True:
            await self._all_clear(deadline)
            try:
                return await self._call(messages, name)
            except _Trouble as trouble:
                pause = self._pause(trouble, attempt)
                if time.monotonic() + pause > deadline:
                    raise self._given_up(trouble) from trouble
            attempt += 1
            await asyncio.sleep(pause)

    async def _all_clear(self, deadline: float) -> None:
        """Wait while the endpoint wants no calls; with dice, so that those that wait do not come at once."""
        while (left := self._not_before - time.monotonic()) > 0:
            if self._not_before > deadline:
                raise NoReply("no answer", f"told to wait for {left:.0f} s, longer than --patience allows")
            await asyncio.sleep(left + random.random() * _FIRST_S / 2)

    def _pause(self, trouble: _Trouble, attempt: int) -> float:
        """Seconds before the next attempt, doubled each time, of which dice take up to half."""
        if trouble.after is not None:
            self._not_before = max(self._not_before, time.monotonic() + trouble.after)
            return trouble.after
        return min(_LONGEST_S, _FIRST_S * 2.0 ** min(attempt, 10)) * (1 + random.random()) / 2

    def _given_up(self, trouble: _Trouble) -> Exception:
        if trouble.unreachable:
            return InputError(
                f"--endpoint: {self.endpoint.url}: {trouble.what}, for {self.endpoint.patience:g} s;"
                " start it and give the same command again: what was answered is kept"
            )
        return NoReply("no answer", f"{trouble.what}, for {self.endpoint.patience:g} s")

    async def _call(self, messages: list[dict[str, Any]], name: str) -> Reply:
        began = time.monotonic()
        try:
            response = await self._client.post(
                f"{self.endpoint.url}/chat/completions",
                json=self._body(messages),
                headers={"Idempotency-Key": name},
            )
        except httpx.TransportError as error:
            unreachable = isinstance(error, httpx.ConnectError)
            what = "nobody answers there" if unreachable else type(error).__name__
            raise _Trouble(what, unreachable=unreachable) from error
        if not response.is_success:
            raise self._refusal(response)
        return _reply(response, time.monotonic() - began)

    def _body(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        body = {"model": self.endpoint.model, "messages": messages, "stream": False}
        body |= {"temperature": 0, "max_tokens": MOST_TOKENS}
        if self.endpoint.form == "schema":
            named = {"name": "caption", "schema": self.schema, "strict": True}
            return {**body, "response_format": {"type": "json_schema", "json_schema": named}}
        if self.endpoint.form == "json":
            return {**body, "response_format": {"type": "json_object"}}
        return body

    def _refusal(self, response: httpx.Response) -> Exception:
        status = response.status_code
        said = f"{status} {self.endpoint.hidden(response.text)}"
        if status in _KEY_REFUSED:
            return _key_refused(self.endpoint, response)
        if status == HTTPStatus.NOT_FOUND:
            return InputError(f"--endpoint, --model: {self.endpoint.url} does not know it: {said}; mend it")
        if status in _MAY_PASS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return _Trouble(said, retry_after(response.headers))
        return NoReply("refused", said)


def _reply(response: httpx.Response, seconds: float) -> Reply:
    """Raises _Trouble for what is not an answer in the form of chat completions."""
    try:
        body = response.json()
        text = body["choices"][0]["message"].get("content") or ""
        spent = body.get("usage") or {}
        tokens = (int(spent.get("prompt_tokens") or 0), int(spent.get("completion_tokens") or 0))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _Trouble(f"no chat completion came ({error!r})") from error
    return Reply(str(text), Usage(1, *tokens, round(seconds, 3)))


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After asks for (RFC 9110, 10.2.3); None without a readable one."""
    value = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())


def refuse_unreachable(endpoint: Endpoint) -> None:
    """Raises InputError at once where nobody listens or the key is refused. No model runs for it."""
    try:
        response = httpx.get(f"{endpoint.url}/models", headers=endpoint.headers(), timeout=10)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        reason = endpoint.hidden(str(error) or type(error).__name__)
        raise InputError(f"--endpoint: {endpoint.url}: {reason}; start it or mend the address") from error
    if response.status_code in _KEY_REFUSED:
        raise _key_refused(endpoint, response)


def _key_refused(endpoint: Endpoint, response: httpx.Response) -> InputError:
    said = f"{response.status_code} {endpoint.hidden(response.text)}"
    return InputError(
        f"--endpoint: {endpoint.url} refuses the key: {said}; mend --key-variable or --key-file"
    )
