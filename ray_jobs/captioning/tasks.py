"""What runs in tasks while photos get captions: which are to be asked about, asking, and writing shards."""

import asyncio
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, NamedTuple

import ray

from ray_jobs.captioning.chat import Chat, Endpoint, NoReply
from ray_jobs.captioning.ledger import Outcome, Wanted
from stbir.captioning.answer import MOST_ANSWERS, Unusable, judge
from stbir.captioning.answer_store import Answers, Asked, Usage, key_of
from stbir.captioning.caption import Caption, schema
from stbir.captioning.prompt import Prompt, again, messages
from stbir.captioning.prompt_image import sent, size_sent
from stbir.data.schema import Row
from stbir.data.shard_writer import Written, write_rows
from stbir.data.shards import Shards
from stbir.errors import InputError
from stbir.storage.folder import Folder

_GRACE_S = 60.0


@dataclass(frozen=True)
class Job:
    """What all tasks know. `source` is the `text_source` of the captions that this job writes."""

    shards: Shards
    answers: Answers
    prompt: Prompt
    source: str
    replace: bool
    chosen: frozenset[str] | None = None  # photos of a sample; None: all


class Survey(NamedTuple):
    """The photos of a file: how many, which want a caption, what the known answers about these have cost."""

    photos: int
    wanted: list[Wanted]
    known: Usage


def stream(task: Any, calls: Iterable[tuple[Any, ...]], at_once: int) -> Generator[Any]:
    """Results of a remote function as they come, `at_once` running.

    Those that are under way when the caller stops may end: what they ask is paid for.
    """
    waiting = iter(calls)
    running: list[ray.ObjectRef] = []
    try:
        while True:
            running += [task.remote(*call) for call in islice(waiting, at_once - len(running))]
            if not running:
                return
            [done], running = ray.wait(running, num_returns=1)
            yield ray.get(done)
    finally:
        if running:
            ray.wait(running, num_returns=len(running), timeout=_GRACE_S)


def survey(job: Job, file: str) -> tuple[str, Survey]:
    """What there is to do in a file. Of a sample, the other photos count as not there."""
    wanted, known, photos = [], Usage(), 0
    for group, rows in groupby(_places(job.shards, file), key=lambda row: row["group"]):
        here = [row for row in rows if job.chosen is None or row["photo_id"] in job.chosen]
        photos += len(here)
        asking = [row for row in here if is_wanted(job, row)]
        pictures = read_pictures(job.shards, file, group) if asking else []
        for row in asking:
            each, usage = _surveyed(job, row, pictures[row["row"]])
            wanted.append(each)
            known += usage
    return file, Survey(photos, wanted, known)


def is_wanted(job: Job, row: dict[str, Any]) -> bool:
    """Whether a photo, as the index of shards has it, is to get a caption."""
    return job.replace or not (row["text"] or "").strip()


def _places(shards: Shards, file: str) -> Iterator[dict[str, Any]]:
    for _, rows in groupby(shards.index_of(file).to_pylist(), key=lambda row: row["group"]):
        yield from ({**row, "row": number} for number, row in enumerate(rows))


def read_pictures(shards: Shards, file: str, group: int) -> list[bytes]:
    """The encoded photos of a row group."""
    return shards.read_group(file, group, ["photo"])["photo"].to_pylist()  # type: ignore[no-any-return]


def _surveyed(job: Job, row: dict[str, Any], photo: bytes) -> tuple[Wanted, Usage]:
    key = key_of(photo)
    asked = job.answers.get(key)
    given = row["text"] if row["text_source"] != job.source else None
    wanted = Wanted(
        photo_id=row["photo_id"],
        file=row["file"],
        group=row["group"],
        row=row["row"],
        key=key,
        size=size_sent(photo, job.prompt.pixels),
        given=given,
        outcome=outcome_of(asked, job.prompt.words),
    )
    return wanted, asked.usage


def outcome_of(asked: Asked, words: int) -> Outcome | None:
    """What the answers come to; None where there is more to ask."""
    found = judge(asked.answers, words) if asked.answers else None
    if isinstance(found, Caption):
        return Outcome(found.text)
    if found is None or len(asked.answers) < MOST_ANSWERS:
        return None
    return Outcome(None, found.reason, found.detail)


def ask(
    job: Job, endpoint: Endpoint, chunk: list[Wanted], in_flight: int
) -> tuple[dict[str, Outcome], Usage]:
    """Ask about these pictures, `in_flight` at a time; by their keys what came of it, and what it cost."""
    return asyncio.run(_ask(job, endpoint, chunk, in_flight))


async def _ask(
    job: Job, endpoint: Endpoint, chunk: list[Wanted], in_flight: int
) -> tuple[dict[str, Outcome], Usage]:
    places = asyncio.Semaphore(in_flight)
    async with Chat(endpoint, schema()) as chat:

        async def one(key: str, photo: bytes) -> tuple[Outcome, Usage]:
            async with places:
                return await _answered(job, chat, key, photo)

        pictures = await asyncio.to_thread(lambda: dict(pictures_of(job.shards, chunk)))
        # All of them, also where one cannot go on: what the others are answered is paid for, and kept.
        found = await asyncio.gather(*(one(*each) for each in pictures.items()), return_exceptions=True)
    done = [each for each in found if not isinstance(each, BaseException)]
    for error in found:
        if isinstance(error, BaseException):
            raise error
    outcomes = dict(zip(pictures, (outcome for outcome, _ in done), strict=True))
    return outcomes, sum((usage for _, usage in done), Usage())


def pictures_of(shards: Shards, wanted: Iterable[Wanted]) -> Iterator[tuple[str, bytes]]:
    """Keys and pictures; a row group is read once where its photos follow one another."""
    for (file, group), photos in groupby(wanted, key=lambda each: (each.file, each.group)):
        pictures = read_pictures(shards, file, group)
        yield from ((each.key, pictures[each.row]) for each in photos)


async def _answered(job: Job, chat: Chat, key: str, photo: bytes) -> tuple[Outcome, Usage]:
    """Ask until there is a caption or no more to ask, keeping each answer before anything is done with it."""
    asked, spent = await asyncio.to_thread(job.answers.get, key), Usage()
    try:
        shown = messages(job.prompt, await asyncio.to_thread(sent, photo, job.prompt.pixels))
    except InputError as error:
        return Outcome(None, "photo does not decode", str(error)), spent
    try:
        while (outcome := outcome_of(asked, job.prompt.words)) is None:
            name = key_of(f"{job.source} {key} {len(asked.answers)}".encode())
            reply = await chat.ask(question(shown, asked, job.prompt.words), name)
            asked, spent = kept(asked, reply.text, reply.usage), spent + reply.usage
            await asyncio.to_thread(job.answers.put, key, asked)
    except NoReply as error:
        return Outcome(None, error.reason, error.detail, failed=True), spent
    return outcome, spent


def kept(asked: Asked, text: str, usage: Usage) -> Asked:
    """With one more answer."""
    return Asked((*asked.answers, text), asked.usage + usage)


def question(shown: list[dict[str, Any]], asked: Asked, words: int) -> list[dict[str, Any]]:
    """The messages to send: the first ones, or those that say what is wrong with the answer they got."""
    found = judge(asked.answers, words) if asked.answers else None
    if not isinstance(found, Unusable):
        return shown
    return again(shown, asked.answers[-1], f"{found.reason} ({found.detail})")


def write(job: Job, out: Folder, number: int, file: str, texts: dict[str, str]) -> Written:
    """A file of the shards once more, with captions by photo id; all else is as it was."""
    return write_rows(out, number, _captioned(job, file, texts))


def _captioned(job: Job, file: str, texts: dict[str, str]) -> Iterator[Row]:
    for group in sorted(set(job.shards.index_of(file)["group"].to_pylist())):
        rows: list[Row] = job.shards.read_group(file, group).to_pylist()
        for row in rows:
            text = texts.get(row["photo_id"])
            yield row if text is None else {**row, "text": text, "text_source": job.source}
