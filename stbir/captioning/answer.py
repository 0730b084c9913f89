"""Parse a model's answer into a caption, or into the reason why it is invalid."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from stbir.captioning.caption import Caption

Reason = Literal[
    "empty answer", "not JSON", "not of the schema", "not plain words", "background", "too many words"
]
MAX_ANSWERS = 2  # per photo: the first, and one after feedback on the first
_CODE_BLOCK = re.compile(r"^```(?:json)?\s*(.*?)\s*```$", re.DOTALL)
_REASONING = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_PHRASE = re.compile(r"[a-zà-öø-ÿ0-9][a-zà-öø-ÿ0-9 '’&/%.-]*")
# Words of a detail about the surroundings or the photo itself.
_BACKGROUND = re.compile(
    r"\b(?:background|backdrop|shadows?|studio|photo(?:graph)?s?|images?|against|in front of)\b"
    r"|\b(?:floor|wall)$"
)
_MAX_PHRASE_LENGTH = 5  # words
_MAX_EXCERPT = 200  # characters of an answer in a message
_SPELLING = {"grey": "gray", "greyish": "grayish"}


@dataclass(frozen=True)
class InvalidAnswer:
    """Why an answer is not a caption."""

    reason: Reason
    detail: str


def parse_answer(answer: str, max_word_count: int) -> Caption | InvalidAnswer:
    """Parse an answer to a caption of at most `max_word_count` words."""
    answer = _unwrap(answer)
    if not answer:
        return InvalidAnswer("empty answer", "nothing was answered")
    try:
        caption = _normalize(TypeAdapter(Caption).validate_json(answer))
    except ValidationError as error:
        return _schema_error(error, answer)
    return next(_check(caption, max_word_count), caption)


def _unwrap(answer: str) -> str:
    """Remove what models put around JSON: reasoning, and the fence of a code block."""
    answer = _REASONING.sub("", answer).strip()
    block = _CODE_BLOCK.match(answer)
    return block[1] if block else answer


def _schema_error(error: ValidationError, answer: str) -> InvalidAnswer:
    details = error.errors()[0]
    if details["type"] == "json_invalid":
        return InvalidAnswer("not JSON", f"{details['ctx']['error']}: {answer[:_MAX_EXCERPT]}")
    field = ".".join(map(str, details["loc"])) or "the object"
    return InvalidAnswer("not of the schema", f"{field}: {details['msg']}")


def _normalize(caption: Caption) -> Caption:
    return Caption(
        item=_normalize_phrase(caption.item),
        colours=_normalize_phrases(caption.colours),
        materials=_normalize_phrases(caption.materials),
        details=_normalize_phrases(caption.details),
    )


def _normalize_phrases(phrases: list[str]) -> list[str]:
    return [phrase for phrase in map(_normalize_phrase, phrases) if phrase]


def _normalize_phrase(phrase: str) -> str:
    tokens = phrase.strip(" .\t\n").lower().split()
    return " ".join(_SPELLING.get(token, token) for token in tokens)


def _check(caption: Caption, max_word_count: int) -> Iterator[InvalidAnswer]:
    for phrase in (caption.item, *caption.colours, *caption.materials, *caption.details):
        if not _PHRASE.fullmatch(phrase) or len(phrase.split()) > _MAX_PHRASE_LENGTH:
            problem = f"{phrase[:_MAX_EXCERPT]!r} is not one to {_MAX_PHRASE_LENGTH} English words"
            yield InvalidAnswer("not plain words", problem)
    for detail in caption.details:
        if _BACKGROUND.search(detail):
            yield InvalidAnswer("background", f"{detail!r} is not about the object itself")
    word_count = len(caption.text.split())
    if word_count > max_word_count:
        yield InvalidAnswer("too many words", f"{word_count} words, at most {max_word_count} are allowed")
