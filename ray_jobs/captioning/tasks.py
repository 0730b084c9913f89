"""Ray tasks of a captioning run: survey the shards, caption photos, write new shards."""

import asyncio
import contextlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, NamedTuple

import ray

from ray_jobs.captioning.chat import ChatClient, Endpoint, NoAnswerError
from ray_jobs.captioning.ledger import CaptionTarget, Outcome
from stbir.captioning.answer import MAX_ANSWERS, InvalidAnswer
from stbir.captioning.answer_store import AnswerRecord, AnswerStore, Usage, content_key
from stbir.captioning.caption import Caption, caption_schema
from stbir.captioning.prompt import Prompt, chat_messages, retry_messages
from stbir.captioning.prompt_image import encode_data_uri, resized_size
from stbir.data.schema import Row
from stbir.data.shard_writer import ShardPart, write_rows
from stbir.data.shards import Shards
from stbir.errors import InputError
from stbir.storage.folder import Folder

_SHUTDOWN_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Job:
    """What all tasks share. `source` is the `text_source` of the new captions."""

    shards: Shards
    store: AnswerStore
    prompt: Prompt
    source: str
    replace: bool
    sample: frozenset[str] | None = None  # photo ids; None: all photos


class Survey(NamedTuple):
    """Photos of a file: their number, those that need a caption, and the usage of their stored answers."""

    photo_count: int
    targets: list[CaptionTarget]
    usage: Usage


def stream_results(task: Any, calls: Iterable[tuple[Any, ...]], concurrency: int) -> Generator[Any]:
    """Yield the results of a remote function as they complete, with `concurrency` calls running.

    If the caller stops early, running calls may finish, because their requests are paid for.
    """
    pending = iter(calls)
    running: list[ray.ObjectRef] = []
    try:
        while True:
            running += [task.remote(*call) for call in islice(pending, concurrency - len(running))]
            if not running:
                return
            [done], running = ray.wait(running, num_returns=1)
            yield ray.get(done)
    finally:
        if running:
            ray.wait(running, num_returns=len(running), timeout=_SHUTDOWN_TIMEOUT_S)


def survey_file(job: Job, file: str) -> tuple[str, Survey]:
    """Find the photos of a file that need a caption. A sampled job ignores the other photos."""
    targets, usage, photo_count = [], Usage(), 0
    for group, rows in groupby(job.shards.read_file_index(file).to_pylist(), key=lambda row: row["group"]):
        numbered = [(n, r) for n, r in enumerate(rows) if job.sample is None or r["photo_id"] in job.sample]
        photo_count += len(numbered)
        uncaptioned = [(number, row) for number, row in numbered if needs_caption(job, row)]
        photos = read_photos(job.shards, file, group) if uncaptioned else []
        for number, row in uncaptioned:
            record = job.store.get(content_key(photos[number]))
            targets.append(_target(job, row, number, photos[number], record))
            usage += record.usage
    return file, Survey(photo_count, targets, usage)


def needs_caption(job: Job, row: dict[str, Any]) -> bool:
    """Whether the job captions the photo of an index row."""
    return job.replace or not (row["text"] or "").strip()


def read_photos(shards: Shards, file: str, group: int) -> list[bytes]:
    """Read the encoded photos of a row group."""
    return shards.read_group(file, group, ["photo"])["photo"].to_pylist()  # type: ignore[no-any-return]


def _target(job: Job, row: dict[str, Any], number: int, photo: bytes, record: AnswerRecord) -> CaptionTarget:
    return CaptionTarget(
        photo_id=row["photo_id"],
        file=row["file"],
        group=row["group"],
        row=number,
        key=content_key(photo),
        size=resized_size(photo, job.prompt.max_side),
        reference=row["text"] if row["text_source"] != job.source else None,
        outcome=outcome_of(record, job.prompt.max_word_count),
    )


def outcome_of(record: AnswerRecord, max_word_count: int) -> Outcome | None:
    """The outcome of the answers so far; None if another request is due."""
    caption = record.parse_last(max_word_count)
    if isinstance(caption, Caption):
        return Outcome(caption.text)
    if caption is None or len(record.answers) < MAX_ANSWERS:
        return None
    return Outcome(None, caption.reason, caption.detail)


def caption_chunk(
    job: Job, endpoint: Endpoint, chunk: list[CaptionTarget], concurrency: int
) -> tuple[dict[str, Outcome], Usage]:
    """Caption photos with `concurrency` calls at a time. Returns outcomes by content key, and the usage."""
    return asyncio.run(_caption_chunk(job, endpoint, chunk, concurrency))


async def _caption_chunk(
    job: Job, endpoint: Endpoint, chunk: list[CaptionTarget], concurrency: int
) -> tuple[dict[str, Outcome], Usage]:
    semaphore, failures = asyncio.Semaphore(concurrency), list[Exception]()
    async with contextlib.aclosing(ChatClient(endpoint, caption_schema())) as client:

        async def caption_with_limit(key: str, photo: bytes) -> tuple[Outcome, Usage]:
            async with semaphore:
                if failures:  # a full disk would not store the answer, either
                    raise failures[0]
                try:
                    return await _caption_photo(job, client, key, photo)
                except Exception as error:
                    failures.append(error)
                    raise

        photos = await asyncio.to_thread(lambda: dict(read_targets(job.shards, chunk)))
        calls = (caption_with_limit(*photo) for photo in photos.items())
        # Finish the started calls before raising: their answers are paid for, and stored.
        results = await asyncio.gather(*calls, return_exceptions=True)
    done = [result for result in results if not isinstance(result, BaseException)]
    for result in results:
        if isinstance(result, BaseException):
            raise result
    outcomes = dict(zip(photos, (outcome for outcome, _ in done), strict=True))
    return outcomes, sum((usage for _, usage in done), Usage())


def read_targets(shards: Shards, targets: Iterable[CaptionTarget]) -> Iterator[tuple[str, bytes]]:
    """Yield content keys and photos. Reads a row group once if its targets are consecutive."""
    for (file, group), members in groupby(targets, key=lambda target: (target.file, target.group)):
        photos = read_photos(shards, file, group)
        yield from ((target.key, photos[target.row]) for target in members)


async def _caption_photo(job: Job, client: ChatClient, key: str, photo: bytes) -> tuple[Outcome, Usage]:
    """Send requests until there is a caption or MAX_ANSWERS answers; stores each answer before its use."""
    record, usage = await asyncio.to_thread(job.store.get, key), Usage()
    try:
        image_uri = await asyncio.to_thread(encode_data_uri, photo, job.prompt.max_side)
    except InputError as error:
        return Outcome(None, "photo does not decode", str(error)), usage
    try:
        while (outcome := outcome_of(record, job.prompt.max_word_count)) is None:
            idempotency_key = content_key(f"{job.source} {key} {len(record.answers)}".encode())
            reply = await client.complete(next_messages(job.prompt, image_uri, record), idempotency_key)
            record, usage = record.append(reply.text, reply.usage), usage + reply.usage
            await asyncio.to_thread(job.store.put, key, record)
    except NoAnswerError as error:
        return Outcome(None, error.reason, error.detail, is_retryable=True), usage
    return outcome, usage


def next_messages(prompt: Prompt, image_uri: str, record: AnswerRecord) -> list[dict[str, Any]]:
    """The messages of the first request, or those with feedback on an invalid answer."""
    messages = chat_messages(prompt, image_uri)
    invalid = record.parse_last(prompt.max_word_count)
    if not isinstance(invalid, InvalidAnswer):
        return messages
    return retry_messages(messages, record.answers[-1], f"{invalid.reason} ({invalid.detail})")


def write_file(job: Job, out: Folder, number: int, file: str, texts: dict[str, str]) -> ShardPart:
    """Write a copy of a shard file with new captions, by photo id."""
    return write_rows(out, number, _iter_captioned(job, file, texts))


def _iter_captioned(job: Job, file: str, texts: dict[str, str]) -> Iterator[Row]:
    for group in sorted(set(job.shards.read_file_index(file)["group"].to_pylist())):
        rows: list[Row] = job.shards.read_group(file, group).to_pylist()
        for row in rows:
            text = texts.get(row["photo_id"])
            yield row if text is None else {**row, "text": text, "text_source": job.source}
