"""The client of chat endpoints: retries, Retry-After, timeouts, and errors that are not retried."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from pydantic import SecretStr

from ray_jobs.captioning import chat
from ray_jobs.captioning.chat import ChatClient, Endpoint, NoAnswerError, Reply, check_endpoint
from ray_jobs.captioning.retry_after import parse_retry_after
from stbir.captioning.caption import caption_schema
from stbir.captioning.prompt import chat_messages, load_prompt
from stbir.captioning.prompt_image import encode_data_uri
from stbir.errors import InputError
from tests.conftest import free_port
from tests.ray_jobs.chat_server import CONTENTS, KEY, MODEL, RETRY_AFTER_S, TOKENS, ChatServer, photo


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setattr(chat, "_INITIAL_DELAY_S", 0.05)
    with ChatServer().running() as server:
        yield server


def endpoint(server: ChatServer, **changes: Any) -> Endpoint:
    settings = {"url": server.url, "model": MODEL, "api_key": SecretStr(KEY), "retry_timeout_s": 10.0}
    return Endpoint(**{**settings, **changes})


def messages(number: int) -> list[dict[str, Any]]:
    return chat_messages(load_prompt(), encode_data_uri(photo(number), 512))


def complete(endpoint: Endpoint, *numbers: int) -> list[Reply | BaseException]:
    """Results of concurrent requests."""

    async def gather() -> list[Reply | BaseException]:
        async with contextlib.aclosing(ChatClient(endpoint, caption_schema())) as client:
            calls = (client.complete(messages(number), str(number)) for number in numbers)
            return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(gather())


@pytest.mark.parametrize("step", ["500", "503", "429", "half", "nonsense"])
def test_transient_errors_are_retried(server: ChatServer, step: str) -> None:
    server.plan = {3: [step]}
    [reply] = complete(endpoint(server), 3)
    assert isinstance(reply, Reply), reply
    assert reply.text == CONTENTS["good"](3)
    assert (reply.usage.calls, reply.usage.tokens_in, reply.usage.tokens_out) == (1, *TOKENS)
    assert server.calls[3] == 2


def test_a_call_that_times_out_is_retried(server: ChatServer) -> None:
    server.plan = {3: ["slow"]}
    [reply] = complete(endpoint(server, timeout_s=0.4), 3)
    assert isinstance(reply, Reply)
    assert server.calls[3] == 2


def test_a_refusal_is_not_retried_and_does_not_show_the_key(server: ChatServer) -> None:
    server.plan = {1: ["400"]}
    refused, other = complete(endpoint(server), 1, 2)
    assert isinstance(refused, NoAnswerError)
    assert (refused.reason, refused.detail) == ("refused", '400 {"error": {"message": "400 for ***"}}')
    assert isinstance(other, Reply)
    assert server.calls[1] == 1


async def wait_for_response(server: ChatServer) -> None:
    while not server.calls[0]:
        await asyncio.sleep(0.01)
    await asyncio.sleep(server.delay_s + 0.1)


def test_a_retry_after_delays_all_calls(server: ChatServer) -> None:
    server.plan = {0: ["429"]}
    server.delay_s = 0.1

    async def one_then_others() -> None:
        async with contextlib.aclosing(ChatClient(endpoint(server), caption_schema())) as client:
            delayed = asyncio.create_task(client.complete(messages(0), "0"))
            await wait_for_response(server)
            others = (client.complete(messages(number), str(number)) for number in (1, 2))
            await asyncio.gather(delayed, *others)

    asyncio.run(one_then_others())
    times, resume_at = server.call_times, server.call_times[0][0] + server.delay_s + RETRY_AFTER_S
    assert min(times[0][1], times[1][0], times[2][0]) >= resume_at - 0.02


def test_retries_end_with_the_retry_timeout(server: ChatServer) -> None:
    server.plan = {0: ["500"] * 50, 1: ["429"]}
    start = time.monotonic()
    for number, status in ((0, "500"), (1, "429")):
        [error] = complete(endpoint(server, retry_timeout_s=0.4), number)
        assert isinstance(error, NoAnswerError)
        assert error.reason == "no answer"
        assert status in error.detail
    assert time.monotonic() - start < 2


def test_a_retry_after_beyond_the_retry_timeout_fails_at_once(server: ChatServer) -> None:
    server.plan = {0: ["429"]}
    server.delay_s = 0.1

    async def one_then_another() -> list[Reply | BaseException]:
        async with contextlib.aclosing(
            ChatClient(endpoint(server, retry_timeout_s=0.2), caption_schema())
        ) as client:
            calls = [asyncio.create_task(client.complete(messages(0), "0"))]
            await wait_for_response(server)
            calls.append(asyncio.create_task(client.complete(messages(1), "1")))
            return await asyncio.gather(*calls, return_exceptions=True)

    assert all(isinstance(result, NoAnswerError) for result in asyncio.run(one_then_another()))
    assert server.calls[1] == 0


def test_an_unreachable_endpoint_is_an_input_error(server: ChatServer) -> None:
    unreachable = endpoint(server, url=f"http://127.0.0.1:{free_port()}/v1", retry_timeout_s=0.3)
    [error] = complete(unreachable, 0)
    assert isinstance(error, InputError)
    assert "cannot connect" in str(error)
    assert "stored answers are reused" in str(error)


def complete_in_sequence(endpoint: Endpoint, numbers: range) -> tuple[list[Reply | BaseException], float]:
    """Results of sequential requests, and their total seconds."""

    async def run() -> list[Reply | BaseException]:
        async with contextlib.aclosing(ChatClient(endpoint, caption_schema())) as client:
            results: list[Reply | BaseException] = []
            for number in numbers:
                call = client.complete(messages(number), str(number))
                results += await asyncio.gather(call, return_exceptions=True)
            return results

    start = time.monotonic()
    return asyncio.run(run()), time.monotonic() - start


def test_only_one_request_to_an_unreachable_endpoint_is_retried(server: ChatServer) -> None:
    unreachable = endpoint(server, url=f"http://127.0.0.1:{free_port()}/v1", retry_timeout_s=0.5)
    results, seconds = complete_in_sequence(unreachable, range(12))
    assert all(isinstance(result, InputError) for result in results)
    assert seconds < 3


def test_requests_fail_at_once_after_consecutive_failures(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "_MAX_CONSECUTIVE_FAILURES", 2)
    server.plan = {number: ["500"] * 50 for number in (0, 2, 3, 4)}
    results, _ = complete_in_sequence(endpoint(server, retry_timeout_s=0.3), range(6))
    assert [isinstance(result, Reply) for result in results] == [False, True, False, False, False, False]
    assert isinstance(results[4], NoAnswerError)
    assert results[4].reason == "no answer"
    assert results[4].detail.startswith("not sent after 2 failures in a row, the last: 500 ")
    assert (server.calls[4], server.calls[5]) == (0, 0)


def test_the_text_of_an_endpoint_does_not_contain_the_key(server: ChatServer) -> None:
    assert KEY not in repr(endpoint(server))
    assert endpoint(server).client_options()["headers"] == {"Authorization": f"Bearer {KEY}"}
    assert endpoint(server, api_key=None).client_options()["headers"] == {}


@pytest.mark.parametrize(("answer_format", "expected"), [("json", {"type": "json_object"}), ("text", None)])
def test_answer_formats_json_and_text(server: ChatServer, answer_format: str, expected: object) -> None:
    assert isinstance(complete(endpoint(server, answer_format=answer_format), 4)[0], Reply)
    assert server.requests[4][0].get("response_format") == expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("-2", None),
        ("", None),
        ("soon", None),
        ("inf", None),
        ("Mon, 01 Jan 2024 00:00:07 GMT", 0.0),
        ("Mon, 01 Jan 99999999 00:00:07 GMT", None),
        ("9" * 30, 6 * 3600.0),
    ],
)
def test_parse_retry_after(value: str, seconds: float | None) -> None:
    assert parse_retry_after({"retry-after": value}) == seconds


def test_a_date_of_retry_after_is_relative_to_now() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert parse_retry_after({"retry-after": later}) == pytest.approx(60, abs=5)


def test_repeated_retry_after_is_followed_by_a_growing_backoff(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "_INITIAL_DELAY_S", 0.4)
    server.plan = {0: ["429", "429"]}
    [reply] = complete(endpoint(server), 0)
    assert isinstance(reply, Reply)
    first, second, third = server.call_times[0]
    assert second - first >= RETRY_AFTER_S + 0.2
    assert third - second >= RETRY_AFTER_S + 0.4


def test_calls_to_this_machine_use_no_proxy(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    check_endpoint(endpoint(server))
    assert isinstance(complete(endpoint(server), 0)[0], Reply)
