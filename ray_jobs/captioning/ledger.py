"""The books of a captioning run: which photos want captions, what came of each, and that none is lost."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stbir.captioning.agreement import Named, agreement
from stbir.captioning.answer_store import Usage
from stbir.data.validation import Fault


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has come of a picture: a caption, or a reason. `failed`: asked once more, it might go well."""

    text: str | None
    reason: str | None = None
    detail: str | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """A photo that is to have a caption: where it lies, its picture's key, and its size as sent.

    `given` is the caption of another source that it has; `outcome` what earlier runs have found.
    """

    photo_id: str
    file: str
    group: int
    row: int
    key: str
    size: tuple[int, int]
    given: str | None
    outcome: Outcome | None


class Ledger:
    """The books of `photos` photos, among which those `wanted` want a caption.

    `spent`: what calls of this run have cost. `bad`: photos that were to have a caption and got none.
    """

    def __init__(self, photos: int, wanted: list[Wanted]) -> None:
        self.photos, self.wanted = photos, wanted
        self.spent, self.bad = Usage(), 0
        self._outcomes: dict[str, Outcome] = {}
        self._with_picture = Counter(each.key for each in wanted)
        self._note({each.key: each.outcome for each in wanted if each.outcome})
        self._new: set[str] = set()

    def pending(self) -> list[Wanted]:
        """Those to ask about: equal pictures once."""
        first = {each.key: each for each in reversed(self.wanted) if each.key not in self._outcomes}
        return list(reversed(first.values()))

    def add(self, outcomes: dict[str, Outcome], spent: Usage) -> None:
        """Note what came of pictures that were asked about, each once."""
        self._note(outcomes)
        self._new |= outcomes.keys()
        self.spent += spent

    def _note(self, outcomes: dict[str, Outcome]) -> None:
        self._outcomes |= outcomes
        self.bad += sum(self._with_picture[key] for key, each in outcomes.items() if each.text is None)

    def of(self, wanted: Wanted) -> Outcome | None:
        """What came of a photo; None where it was not asked about."""
        return self._outcomes.get(wanted.key)

    def counts(self) -> dict[str, int]:
        """Every photo under one heading; `in` is the sum of the others."""
        kinds = Counter(self._kinds())
        names = ("captioned", "already_there", "kept", "quarantined", "failed", "not_asked")
        kinds["kept"] = self.photos - kinds.total()
        return {"in": self.photos, **{name: kinds[name] for name in names}}

    def _kinds(self) -> Iterator[str]:
        new = set(self._new)
        for each in self.wanted:
            outcome = self.of(each)
            if outcome is None:
                yield "not_asked"
            elif outcome.text is None:
                yield "failed" if outcome.failed else "quarantined"
            else:
                yield "captioned" if each.key in new else "already_there"
                new.discard(each.key)

    def faults(self) -> list[Fault]:
        """A line of the quarantine for each of these."""
        return list(self._faults())

    def _faults(self) -> Iterator[Fault]:
        for each in self.wanted:
            outcome = self.of(each)
            if outcome is not None and outcome.reason is not None:
                yield Fault(each.photo_id, outcome.reason, each.file, outcome.detail)

    def texts(self) -> dict[str, dict[str, str]]:
        """The new captions: file → photo id → text."""
        found: dict[str, dict[str, str]] = {}
        for each in self.wanted:
            outcome = self.of(each)
            if outcome is not None and outcome.text is not None:
                found.setdefault(each.file, {})[each.photo_id] = outcome.text
        return found

    def agreement(self) -> dict[str, Named]:
        """Of the captions that were given, against the new ones."""
        return agreement(self._pairs())

    def _pairs(self) -> Iterable[tuple[str, str]]:
        for each in self.wanted:
            outcome = self.of(each)
            if each.given and outcome is not None and outcome.text:
                yield each.given, outcome.text
