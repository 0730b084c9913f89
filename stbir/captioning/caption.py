"""A structured caption and its text `colour material item, detail[, detail]`."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

MAX_WORD_COUNT = 10


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Caption:
    """The fields a model returns. Colours and materials are in order of their area."""

    item: str
    colours: Annotated[list[str], Field(min_length=1, max_length=2)]
    materials: Annotated[list[str], Field(max_length=2)]
    details: Annotated[list[str], Field(min_length=1, max_length=3)]

    @property
    def text(self) -> str:
        """The caption in the form of the STBIR data sets, without phrases that the item already contains."""
        seen = [set(self.item.split())]
        before = [" and ".join(_drop_repeated(phrases, seen)) for phrases in (self.colours, self.materials)]
        head = " ".join(part for part in (*before, self.item) if part)
        return ", ".join([head, *_drop_repeated(self.details, seen)])


def _drop_repeated(phrases: list[str], seen: list[set[str]]) -> list[str]:
    """Return the phrases whose words are not all in one phrase of `seen`, and add them to `seen`."""
    new = []
    for phrase in phrases:
        tokens = set(phrase.split())
        if not any(tokens <= earlier for earlier in seen):
            new.append(phrase)
            seen.append(tokens)
    return new


def caption_schema() -> dict[str, Any]:
    """Return the JSON schema of an answer, without the docstring."""
    schema = TypeAdapter(Caption).json_schema()
    del schema["description"]
    return schema
