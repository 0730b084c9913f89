"""From what a model answered to a caption, or to the reason why there is none."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from stbir.captioning.caption import Caption

Reason = Literal[
    "empty answer", "not JSON", "not of the schema", "not plain words", "background", "too many words"
]
MOST_ANSWERS = 2  # the first, and one more that was told what is wrong with the first
_FENCED = re.compile(r"^```(?:json)?\s*(.*?)\s*```$", re.DOTALL)
_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_PLAIN = re.compile(r"[a-zà-öø-ÿ0-9][a-zà-öø-ÿ0-9 '’&/%.-]*")
# In a detail these speak of what is around the object, or of the photo of it.
_AROUND = re.compile(
    r"\b(?:background|backdrop|shadows?|studio|photo(?:graph)?s?|images?|against|in front of)\b"
    r"|\b(?:floor|wall)$"
)
_PHRASE = 5  # words
_SHOWN = 200  # letters of an answer in a message
_SPELLING = {"grey": "gray", "greyish": "grayish"}


@dataclass(frozen=True)
class Unusable:
    """Why an answer is no caption: one of few reasons, and what in it."""

    reason: Reason
    detail: str


def judge(answers: Sequence[str], words: int) -> Caption | Unusable:
    """What the last of a model's answers about a photo comes to, at most `words` long as text."""
    answer = _bare(answers[-1])
    if not answer:
        return Unusable("empty answer", "nothing was answered")
    try:
        caption = _tidied(TypeAdapter(Caption).validate_json(answer))
    except ValidationError as error:
        return _misformed(error, answer)
    return next(_faults(caption, words), caption)


def _bare(answer: str) -> str:
    """Without what models put around JSON: thoughts, and the fence of a code block."""
    answer = _THOUGHT.sub("", answer).strip()
    fenced = _FENCED.match(answer)
    return fenced[1] if fenced else answer


def _misformed(error: ValidationError, answer: str) -> Unusable:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return Unusable("not JSON", f"{first['ctx']['error']}: {answer[:_SHOWN]}")
    where = ".".join(map(str, first["loc"])) or "the object"
    return Unusable("not of the schema", f"{where}: {first['msg']}")


def _tidied(caption: Caption) -> Caption:
    return Caption(
        item=_tidy(caption.item),
        colours=_tidy_all(caption.colours),
        materials=_tidy_all(caption.materials),
        details=_tidy_all(caption.details),
    )


def _tidy_all(phrases: list[str]) -> list[str]:
    return [tidy for phrase in phrases if (tidy := _tidy(phrase))]


def _tidy(phrase: str) -> str:
    words = phrase.strip(" .\t\n").lower().split()
    return " ".join(_SPELLING.get(word, word) for word in words)


def _faults(caption: Caption, words: int) -> Iterator[Unusable]:
    phrases = [caption.item, *caption.colours, *caption.materials, *caption.details]
    for phrase in phrases:
        if not _PLAIN.fullmatch(phrase) or len(phrase.split()) > _PHRASE:
            yield Unusable("not plain words", f"{phrase[:_SHOWN]!r} is not one to {_PHRASE} English words")
    for detail in caption.details:
        if _AROUND.search(detail):
            yield Unusable("background", f"{detail!r} is not about the object itself")
    count = len(caption.text.split())
    if count > words:
        yield Unusable("too many words", f"{count} words, at most {words} are allowed")
