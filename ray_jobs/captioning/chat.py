"""Client of OpenAI-compatible chat endpoints (vLLM, Ollama, hosted models) with retries."""

import asyncio
import ipaddress
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

import httpx
from pydantic import SecretStr

from ray_jobs.captioning.retry_after import parse_retry_after
from stbir.captioning.answer_store import Usage
from stbir.errors import InputError

AnswerFormat = Literal["schema", "json", "text"]
ANSWER_FORMATS: tuple[AnswerFormat, ...] = ("schema", "json", "text")
MAX_ANSWER_TOKENS = 400  # a caption takes about sixty
_INITIAL_DELAY_S, _MAX_DELAY_S = 0.5, 30.0
_KEY_REJECTED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN}
_TRANSIENT = {408, 409, 425, 429}  # request timeout, conflict, too early, too many requests
_MAX_CONSECUTIVE_FAILURES = 8  # more are due to the endpoint, not to the photos
_MAX_EXCERPT = 200  # characters of a response in a message


@dataclass(frozen=True)
class Endpoint:
    """A chat endpoint and how to call it. Messages never contain `api_key`.

    `answer_format` is how the request demands JSON. `timeout_s` applies to one call, `retry_timeout_s` to all
    attempts for one photo.
    """

    url: str
    model: str
    api_key: SecretStr | None = None
    answer_format: AnswerFormat = "schema"
    timeout_s: float = 120.0
    retry_timeout_s: float = 300.0

    def client_options(self) -> dict[str, Any]:
        """Return the options of an HTTP client: the API key, and the proxies of the environment."""
        key = self.api_key and self.api_key.get_secret_value()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return {"headers": headers, "verify": httpx.create_ssl_context(), "trust_env": not self.is_local}

    @property
    def is_local(self) -> bool:
        """Whether the endpoint is on this machine, to which the proxies of the environment do not apply."""
        host = httpx.URL(self.url).host
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host.lower() == "localhost"

    def redact(self, text: str) -> str:
        """Return a response text as one short line without the API key."""
        line = " ".join(text.split())
        key = self.api_key.get_secret_value() if self.api_key else None
        return (line.replace(key, "***") if key else line)[:_MAX_EXCERPT]


@dataclass(frozen=True)
class Reply:
    """The unmodified text of an answer, and its usage."""

    text: str
    usage: Usage


class NoAnswerError(Exception):
    """A request without an answer. Requests for other photos may succeed."""

    def __init__(self, reason: Literal["refused", "no answer"], detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class _TransientError(Exception):
    """A failed attempt that can be retried, after `delay_s` if the endpoint specifies it."""

    def __init__(self, message: str, delay_s: float | None = None, is_unreachable: bool = False) -> None:
        super().__init__(message)
        self.delay_s, self.is_unreachable = delay_s, is_unreachable


@dataclass
class ChatClient:
    """The client of one process. A Retry-After delays all its calls.

    After a fatal error or too many consecutive failures, new requests fail at once.
    """

    endpoint: Endpoint
    schema: Mapping[str, Any]
    _resume_at: float = field(default=0.0, init=False)  # by time.monotonic, after a Retry-After
    _failure_count: int = field(default=0, init=False)  # consecutive
    _fatal_error: Exception | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        options = self.endpoint.client_options()
        self._client = httpx.AsyncClient(timeout=self.endpoint.timeout_s, limits=limits, **options)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def complete(self, messages: list[dict[str, Any]], idempotency_key: str) -> Reply:
        """Request an answer, with retries.

        Raises NoAnswerError if this request fails, InputError if all requests would.
        """
        if self._fatal_error:
            raise self._fatal_error
        try:
            reply = await self._complete_with_retries(messages, idempotency_key)
        except (NoAnswerError, InputError) as error:
            self._record_failure(error)
            raise
        self._failure_count = 0
        return reply

    def _record_failure(self, error: NoAnswerError | InputError) -> None:
        if isinstance(error, InputError):
            self._fatal_error = error
        elif error.reason == "no answer":
            self._failure_count += 1
            if self._failure_count >= _MAX_CONSECUTIVE_FAILURES:
                detail = f"not sent after {self._failure_count} failures in a row, the last: {error.detail}"
                self._fatal_error = NoAnswerError("no answer", detail)

    async def _complete_with_retries(self, messages: list[dict[str, Any]], idempotency_key: str) -> Reply:
        deadline = time.monotonic() + self.endpoint.retry_timeout_s
        attempt = 0
        while True:
            await self._wait_for_retry_after(deadline)
            try:
                return await self._call(messages, idempotency_key)
            except _TransientError as error:
                delay = self._delay(error, attempt)
                if time.monotonic() + delay > deadline:
                    raise self._timeout_error(error) from error
            attempt += 1
            await asyncio.sleep(delay)

    async def _wait_for_retry_after(self, deadline: float) -> None:
        """Wait until the endpoint accepts calls again, with jitter against simultaneous calls."""
        while (remaining := self._resume_at - time.monotonic()) > 0:
            if self._resume_at > deadline:
                raise NoAnswerError("no answer", f"Retry-After of {remaining:.0f} s exceeds --retry-timeout")
            await asyncio.sleep(remaining + random.random() * _INITIAL_DELAY_S / 2)

    def _delay(self, error: _TransientError, attempt: int) -> float:
        """Seconds before the next attempt: Retry-After, plus exponential backoff with jitter."""
        backoff_s = min(_MAX_DELAY_S, _INITIAL_DELAY_S * 2.0 ** min(attempt, 10)) * (1 + random.random()) / 2
        if error.delay_s is None:
            return backoff_s
        # The backoff too, as the endpoint sends the same Retry-After to all calls.
        self._resume_at = max(self._resume_at, time.monotonic() + error.delay_s)
        return error.delay_s + backoff_s

    def _timeout_error(self, error: _TransientError) -> Exception:
        problem = f"{error}, for {self.endpoint.retry_timeout_s:g} s"
        if error.is_unreachable:
            remedy = "start it and run the same command again: stored answers are reused"
            return InputError(f"--endpoint: {self.endpoint.url}: {problem}; {remedy}")
        return NoAnswerError("no answer", problem)

    async def _call(self, messages: list[dict[str, Any]], idempotency_key: str) -> Reply:
        start = time.monotonic()
        try:
            response = await self._client.post(
                f"{self.endpoint.url}/chat/completions",
                json=self._body(messages),
                headers={"Idempotency-Key": idempotency_key},
            )
        except httpx.TransportError as error:
            is_unreachable = isinstance(error, httpx.ConnectError)
            message = "cannot connect" if is_unreachable else type(error).__name__
            raise _TransientError(message, is_unreachable=is_unreachable) from error
        if not response.is_success:
            raise self._response_error(response)
        return _parse_reply(response, time.monotonic() - start)

    def _body(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        body = {"model": self.endpoint.model, "messages": messages, "stream": False}
        body |= {"temperature": 0, "max_tokens": MAX_ANSWER_TOKENS}
        if self.endpoint.answer_format == "schema":
            json_schema = {"name": "caption", "schema": self.schema, "strict": True}
            return {**body, "response_format": {"type": "json_schema", "json_schema": json_schema}}
        if self.endpoint.answer_format == "json":
            return {**body, "response_format": {"type": "json_object"}}
        return body

    def _response_error(self, response: httpx.Response) -> Exception:
        status = response.status_code
        detail = f"{status} {self.endpoint.redact(response.text)}"
        if status in _KEY_REJECTED:
            return _key_error(self.endpoint, response)
        if status == HTTPStatus.NOT_FOUND:
            return InputError(
                f"--endpoint, --model: not found at {self.endpoint.url}: {detail}; correct them"
            )
        if status in _TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return _TransientError(detail, parse_retry_after(response.headers))
        return NoAnswerError("refused", detail)


def _parse_reply(response: httpx.Response, seconds: float) -> Reply:
    """Raises _TransientError if the response is not a chat completion."""
    try:
        body = response.json()
        text = body["choices"][0]["message"].get("content") or ""
        usage = body.get("usage") or {}
        tokens = (int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _TransientError(f"the response is not a chat completion ({error!r})") from error
    return Reply(str(text), Usage(1, *tokens, round(seconds, 3)))


def check_endpoint(endpoint: Endpoint) -> None:
    """List the endpoint's models. Raises InputError if it is unreachable or rejects the API key."""
    try:
        with httpx.Client(**endpoint.client_options()) as client:
            response = client.get(f"{endpoint.url}/models", timeout=10)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        reason = endpoint.redact(str(error) or type(error).__name__)
        raise InputError(f"--endpoint: {endpoint.url}: {reason}; start it or correct the URL") from error
    if response.status_code in _KEY_REJECTED:
        raise _key_error(endpoint, response)


def _key_error(endpoint: Endpoint, response: httpx.Response) -> InputError:
    detail = f"{response.status_code} {endpoint.redact(response.text)}"
    remedy = "correct --api-key-env or --api-key-file"
    return InputError(f"--endpoint: {endpoint.url} rejects the API key: {detail}; {remedy}")
