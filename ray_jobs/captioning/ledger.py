"""Outcome of each photo in a captioning run, and the counts."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from stbir.captioning.agreement import Agreement, measure_agreement
from stbir.captioning.answer_store import Usage
from stbir.data.validation import Fault


@dataclass(frozen=True, slots=True)
class Outcome:
    """A caption, or the reason why there is none. `is_retryable`: another run may succeed."""

    text: str | None
    reason: str | None = None
    detail: str | None = None
    is_retryable: bool = False


@dataclass(frozen=True, slots=True)
class CaptionTarget:
    """A photo that needs a caption: its location, content key, and (width, height) in a request.

    `reference` is its caption from another source. `outcome` follows from stored answers.
    """

    photo_id: str
    file: str
    group: int
    row: int
    key: str
    size: tuple[int, int]
    reference: str | None
    outcome: Outcome | None


class Ledger:
    """Outcomes of the `targets` among `photo_count` photos.

    `usage` sums the calls of this run. `error_count` counts targets that ended without a caption.
    """

    def __init__(self, photo_count: int, targets: list[CaptionTarget]) -> None:
        self.photo_count, self.targets = photo_count, targets
        self.usage, self.error_count = Usage(), 0
        self._outcomes: dict[str, Outcome] = {}
        self._photos_by_key = Counter(target.key for target in targets)
        self._record({target.key: target.outcome for target in targets if target.outcome})
        self._new: set[str] = set()

    def pending(self) -> list[CaptionTarget]:
        """Targets without an outcome, one of each content key."""
        by_key = {t.key: t for t in reversed(self.targets) if t.key not in self._outcomes}
        return list(reversed(by_key.values()))

    def add(self, outcomes: dict[str, Outcome], usage: Usage) -> None:
        """Record new outcomes by content key."""
        self._record(outcomes)
        self._new |= outcomes.keys()
        self.usage += usage

    def _record(self, outcomes: dict[str, Outcome]) -> None:
        self._outcomes |= outcomes
        failed = (key for key, outcome in outcomes.items() if outcome.text is None)
        self.error_count += sum(self._photos_by_key[key] for key in failed)

    def outcome(self, target: CaptionTarget) -> Outcome | None:
        """The outcome of a photo; None if no request was sent."""
        return self._outcomes.get(target.key)

    def counts(self) -> dict[str, int]:
        """Number of photos by outcome; `in` is the sum of the others."""
        counts = Counter(self._outcome_names())
        names = ("captioned", "already_there", "kept", "quarantined", "failed", "not_asked")
        counts["kept"] = self.photo_count - counts.total()
        return {"in": self.photo_count, **{name: counts[name] for name in names}}

    def _outcome_names(self) -> Iterator[str]:
        new = set(self._new)
        for target in self.targets:
            outcome = self.outcome(target)
            if outcome is None:
                yield "not_asked"
            elif outcome.text is None:
                yield "failed" if outcome.is_retryable else "quarantined"
            else:
                yield "captioned" if target.key in new else "already_there"
                new.discard(target.key)

    def faults(self) -> list[Fault]:
        """Quarantine rows of the photos without a caption."""
        return [
            Fault(target.photo_id, outcome.reason, target.file, outcome.detail)
            for target, outcome in self._finished()
            if outcome.reason is not None
        ]

    def texts(self) -> dict[str, dict[str, str]]:
        """The new captions: file → photo id → text."""
        texts: dict[str, dict[str, str]] = {}
        for target, outcome in self._finished():
            if outcome.text is not None:
                texts.setdefault(target.file, {})[target.photo_id] = outcome.text
        return texts

    def agreement(self) -> dict[str, Agreement]:
        """Agreement of the new captions with the references."""
        pairs = ((target.reference, outcome.text) for target, outcome in self._finished())
        return measure_agreement((reference, text) for reference, text in pairs if reference and text)

    def _finished(self) -> Iterator[tuple[CaptionTarget, Outcome]]:
        for target in self.targets:
            if outcome := self.outcome(target):
                yield target, outcome
