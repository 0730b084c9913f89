"""Persistent store of model answers, so that no paid call is repeated."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from stbir.captioning.answer import InvalidAnswer, parse_answer
from stbir.captioning.caption import Caption
from stbir.captioning.prompt import Prompt
from stbir.errors import InputError
from stbir.storage.folder import Folder
from stbir.storage.manifest import known_fields


@dataclass(frozen=True)
class Usage:
    """Sums over model calls: their number, tokens in and out, and latency in seconds."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class AnswerRecord:
    """All answers of a model about one photo, unmodified and in order, and their total usage."""

    answers: Sequence[str] = ()
    usage: Usage = Usage()

    def append(self, answer: str, usage: Usage) -> "AnswerRecord":
        """Return a record with one more answer."""
        return AnswerRecord((*self.answers, answer), self.usage + usage)

    def parse_last(self, max_word_count: int) -> Caption | InvalidAnswer | None:
        """Parse the last answer; None if there is none."""
        return parse_answer(self.answers[-1], max_word_count) if self.answers else None


class AnswerStore:
    """A folder of answer records: one file per photo, below one folder per model and prompt version."""

    def __init__(self, folder: Folder, model: str, prompt: Prompt) -> None:
        self.folder = folder.child(f"{_slug(model)}/{prompt.version}")

    def get(self, key: str) -> AnswerRecord:
        """Read the record of a photo; empty if there is none. Raises InputError if its file is damaged."""
        try:
            data = self.folder.read(_file_name(key))
        except InputError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return AnswerRecord()
            raise
        try:
            fields = json.loads(data)
            return AnswerRecord(tuple(fields["answers"]), Usage(**known_fields(Usage, fields["usage"])))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{self.folder.uri}/{_file_name(key)}: damaged ({error}); remove it") from error

    def put(self, key: str, record: AnswerRecord) -> None:
        """Write the record of a photo durably."""
        self.folder.write(_file_name(key), json.dumps(asdict(record)).encode())


def content_key(data: bytes) -> str:
    """Return the SHA-256 of some content: photos with equal bytes share a record."""
    return hashlib.sha256(data).hexdigest()


def _file_name(key: str) -> str:
    return f"{key[:2]}/{key}.json"


def _slug(model: str) -> str:
    """Folder name of a model. The digest distinguishes names that differ only in special characters."""
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.")[:80]
    return f"{readable}-{hashlib.sha256(model.encode()).hexdigest()[:6]}"
