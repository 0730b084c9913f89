"""What models answered, kept for good: whatever was paid for is never asked again."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from stbir.captioning.prompt import Prompt
from stbir.errors import InputError
from stbir.storage.folder import Folder


@dataclass(frozen=True)
class Usage:
    """What calls have cost: how many, tokens in and out, seconds from asking to answer, summed."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            *(mine + its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True))
        )


@dataclass(frozen=True)
class Asked:
    """All that a model has answered about one picture, in order, as it came, and what that has cost."""

    answers: Sequence[str] = ()
    usage: Usage = Usage()


class Answers:
    """A folder with a file a picture, apart for each model and version of the prompt."""

    def __init__(self, folder: Folder, model: str, prompt: Prompt) -> None:
        self.folder = folder.child(f"{_slug(model)}/{prompt.version}")

    def get(self, key: str) -> Asked:
        """What is known of a picture. Raises InputError where its file is damaged."""
        try:
            data = self.folder.read(_name(key))
        except InputError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return Asked()
            raise
        try:
            fields = json.loads(data)
            return Asked(tuple(fields["answers"]), Usage(**fields["usage"]))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{self.folder.uri}/{_name(key)}: damaged ({error}); remove it") from error

    def put(self, key: str, asked: Asked) -> None:
        """Keep all that is known of a picture; when this returns, it is kept."""
        self.folder.write(_name(key), json.dumps(asdict(asked)).encode())


def key_of(photo: bytes) -> str:
    """By what a picture is known, whatever its photo is called."""
    return hashlib.sha256(photo).hexdigest()


def _name(key: str) -> str:
    return f"{key[:2]}/{key}.json"


def _slug(model: str) -> str:
    """A model's name as that of a folder, and a digest, for the sake of names that differ by a slash only."""
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-.")[:80]
    return f"{readable}-{hashlib.sha256(model.encode()).hexdigest()[:6]}"
