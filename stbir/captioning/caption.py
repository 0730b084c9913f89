"""A caption in its parts, and as the words of a data set: `colour material item, detail[, detail]`."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

MOST_WORDS = 10


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Caption:
    """What a model is asked for; of colours and materials the larger part comes first."""

    item: str
    colours: Annotated[list[str], Field(min_length=1, max_length=2)]
    materials: Annotated[list[str], Field(max_length=2)]
    details: Annotated[list[str], Field(min_length=1, max_length=3)]

    @property
    def text(self) -> str:
        """The caption as captions of STBIR read. What the item's name says already is not said twice."""
        said = [set(self.item.split())]
        before = [" and ".join(_new(phrases, said)) for phrases in (self.colours, self.materials)]
        head = " ".join(part for part in (*before, self.item) if part)
        return ", ".join([head, *_new(self.details, said)])


def _new(phrases: list[str], said: list[set[str]]) -> list[str]:
    """The phrases that no phrase before them says in full; what they say is noted in `said`."""
    kept = []
    for phrase in phrases:
        words = set(phrase.split())
        if not any(words <= earlier for earlier in said):
            kept.append(phrase)
            said.append(words)
    return kept


def schema() -> dict[str, Any]:
    """The JSON schema that an answer must follow, without what is for readers of this file."""
    fields = TypeAdapter(Caption).json_schema()
    del fields["description"]
    return fields
