"""The client of chat endpoints: what it waits for, what it does not, and for how long."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from ray_jobs.captioning import chat
from ray_jobs.captioning.chat import Chat, Endpoint, NoReply, Reply, retry_after
from stbir.captioning.caption import schema
from stbir.captioning.prompt import load_prompt, messages
from stbir.captioning.prompt_image import sent
from stbir.errors import InputError
from tests.conftest import free_port
from tests.ray_jobs.chat_server import CONTENTS, KEY, MODEL, TOKENS, ChatServer, photo


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setattr(chat, "_FIRST_S", 0.05)
    with ChatServer().running() as server:
        yield server


def endpoint(server: ChatServer, **changes: Any) -> Endpoint:
    return Endpoint(**{"url": server.url, "model": MODEL, "key": SecretStr(KEY), "patience": 10.0, **changes})


def question(number: int) -> list[dict[str, Any]]:
    return messages(load_prompt(), sent(photo(number), 512))


def asked(there: Endpoint, *numbers: int) -> list[Reply | BaseException]:
    async def all_of_them() -> list[Reply | BaseException]:
        async with Chat(there, schema()) as talk:
            calls = (talk.ask(question(number), str(number)) for number in numbers)
            return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("step", ["500", "503", "429", "half", "nonsense"])
def test_what_may_pass_is_tried_again(server: ChatServer, step: str) -> None:
    server.plan = {3: [step]}
    [reply] = asked(endpoint(server), 3)
    assert isinstance(reply, Reply), reply
    assert reply.text == CONTENTS["good"](3)
    assert (reply.usage.calls, reply.usage.tokens_in, reply.usage.tokens_out) == (1, *TOKENS)
    assert server.calls[3] == 2


def test_a_call_that_is_too_slow_is_tried_again(server: ChatServer) -> None:
    server.plan = {3: ["slow"]}
    [reply] = asked(endpoint(server, timeout=0.4), 3)
    assert isinstance(reply, Reply)
    assert server.calls[3] == 2


def test_a_refusal_is_final_and_never_says_the_key(server: ChatServer) -> None:
    server.plan = {1: ["400"]}
    refused, other = asked(endpoint(server), 1, 2)
    assert isinstance(refused, NoReply)
    assert (refused.reason, refused.detail) == ("refused", '400 {"error": {"message": "400 for ***"}}')
    assert isinstance(other, Reply)
    assert server.calls[1] == 1


def test_all_calls_wait_when_one_is_told_to(server: ChatServer) -> None:
    server.plan = {0: ["429"]}
    server.delay = 0.1

    async def one_then_others() -> None:
        async with Chat(endpoint(server), schema()) as talk:
            first = asyncio.create_task(talk.ask(question(0), "0"))
            await asyncio.sleep(0.5)  # it has been refused by now, for a second
            await asyncio.gather(first, *(talk.ask(question(number), str(number)) for number in (1, 2)))

    asyncio.run(one_then_others())
    refused = server.moments[0][0] + server.delay
    assert min(server.moments[0][1], server.moments[1][0], server.moments[2][0]) >= refused + 0.98


def test_patience_ends(server: ChatServer) -> None:
    server.plan = {0: ["500"] * 50, 1: ["429"]}
    began = time.monotonic()
    for number, why in ((0, "500"), (1, "429")):
        [failing] = asked(endpoint(server, patience=0.5), number)
        assert isinstance(failing, NoReply)
        assert failing.reason == "no answer"
        assert why in failing.detail
    assert time.monotonic() - began < 2


def test_a_wait_longer_than_patience_is_not_begun(server: ChatServer) -> None:
    server.plan = {0: ["429"]}
    server.delay = 0.1

    async def one_then_another() -> list[Reply | BaseException]:
        async with Chat(endpoint(server, patience=0.5), schema()) as talk:
            calls = [asyncio.create_task(talk.ask(question(0), "0"))]
            await asyncio.sleep(0.4)  # it has been told to wait for a second
            calls.append(asyncio.create_task(talk.ask(question(1), "1")))
            return await asyncio.gather(*calls, return_exceptions=True)

    assert all(isinstance(found, NoReply) for found in asyncio.run(one_then_another()))
    assert server.calls[1] == 0


def test_nobody_there_is_no_photos_fault(server: ChatServer) -> None:
    there = endpoint(server, url=f"http://127.0.0.1:{free_port()}/v1", patience=0.3)
    [error] = asked(there, 0)
    assert isinstance(error, InputError)
    assert "nobody answers there" in str(error)
    assert "what was answered is kept" in str(error)


def one_by_one(there: Endpoint, numbers: range) -> tuple[list[Reply | BaseException], float]:
    """What becomes of questions of which one is under way at a time, and the seconds it takes."""

    async def in_turn() -> list[Reply | BaseException]:
        async with Chat(there, schema()) as talk:
            found: list[Reply | BaseException] = []
            for number in numbers:
                found += await asyncio.gather(talk.ask(question(number), str(number)), return_exceptions=True)
            return found

    began = time.monotonic()
    return asyncio.run(in_turn()), time.monotonic() - began


def test_where_nobody_is_there_one_question_is_patient_for_all(server: ChatServer) -> None:
    nobody = endpoint(server, url=f"http://127.0.0.1:{free_port()}/v1", patience=0.5)
    found, seconds = one_by_one(nobody, range(12))
    assert all(isinstance(each, InputError) for each in found)
    assert seconds < 3


def test_after_some_questions_without_an_answer_the_others_are_not_asked(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "_MOST_UNANSWERED", 2)
    server.plan = {number: ["500"] * 50 for number in (0, 2, 3, 4)}
    found, _ = one_by_one(endpoint(server, patience=0.3), range(6))
    assert [isinstance(each, Reply) for each in found] == [False, True, False, False, False, False]
    assert isinstance(found[4], NoReply)
    assert (found[4].reason, found[4].detail[:38]) == ("no answer", "not asked: 2 before it got none, the l")
    assert (server.calls[4], server.calls[5]) == (0, 0)


def test_the_key_is_in_no_text_of_the_endpoint(server: ChatServer) -> None:
    there = endpoint(server)
    assert KEY not in repr(there)
    assert there.headers() == {"Authorization": f"Bearer {KEY}"}
    assert endpoint(server, key=None).headers() == {}


@pytest.mark.parametrize(("form", "asked_for"), [("json", {"type": "json_object"}), ("text", None)])
def test_endpoints_that_take_no_schema(server: ChatServer, form: str, asked_for: object) -> None:
    assert isinstance(asked(endpoint(server, form=form), 4)[0], Reply)
    assert server.asked[4][0].get("response_format") == asked_for


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-2", 0.0),
        ("", None),
        ("soon", None),
        ("Mon, 01 Jan 2024 00:00:07 GMT", 7.0),
        ("Sun, 31 Dec 2023 23:00:00 GMT", 0.0),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}, datetime(2024, 1, 1, tzinfo=UTC)) == seconds
