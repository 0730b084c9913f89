"""What a person sees of an embedding job while it runs, on standard error, and what is counted on the way."""

import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ray_jobs.embedding.pipeline import Embedded
from stbir.errors import InputError

log = logging.getLogger(__name__)
_EVERY_SECONDS = 5.0
_WIDTH = 24


@dataclass
class Counts:
    """Every listed photo is one of the four: embedded, there already, in quarantine, or failed."""

    embedded: int = 0
    already_there: int = 0
    quarantined: int = 0
    failed: int = 0

    def add(self, part: Embedded) -> None:
        """Count a part."""
        decoded = part.decoded
        self.embedded += len(decoded.photo_ids)
        self.already_there += len(decoded.there)
        self.failed += len(decoded.failed)
        self.quarantined += len(decoded.faults) - len(decoded.failed)

    @property
    def done(self) -> int:
        """All of them."""
        return sum(asdict(self).values())

    def summary(self) -> dict[str, int]:
        """As the manifest has them: `ok` are the photos of the catalogue that the gallery holds."""
        return {"in": self.done, "ok": self.embedded + self.already_there, **asdict(self)}


class Progress:
    """A line every few seconds: on a terminal always the same one, with a bar."""

    def __init__(
        self,
        count: Callable[[], int],
        heard: Callable[[dict[str, int], float], None] = lambda counts, waited: None,
    ) -> None:
        """`count` says how many photos there will be; it may take its time, and is asked beside the work.
        `heard` is told the counts and the share of waiting whenever a person is."""
        self.counts, self._heard = Counts(), heard
        self._total: int | None = None
        self.batch = 0  # photos encoded at once, as the job found them best
        self._waited = self._worked = 0.0
        self._began = self._last = self._shown = time.monotonic()
        self._first = 0  # photos of the first part: it waited for everything to start
        self._asking = threading.Thread(target=self._ask, args=(count,), daemon=True)
        self._asking.start()

    def add(self, part: Embedded) -> None:
        """Count a part, and say so from time to time."""
        self.counts.add(part)
        if not self._first:
            self._first, self._began = self.counts.done, time.monotonic()
        self._waited += part.encoded.waited_s
        self._worked += part.encoded.worked_s
        self.batch = part.encoded.batch
        self._last = time.monotonic()
        if time.monotonic() - self._shown > _EVERY_SECONDS:
            self.show()

    @property
    def waited(self) -> float:
        """The share of its time that the encoder waited for photos."""
        return self._waited / max(self._waited + self._worked, 1e-9)

    @property
    def rate(self) -> float:
        """Photos a second, of all kinds, since the first came through."""
        return (self.counts.done - self._first) / max(self._last - self._began, 1e-9)

    def show(self) -> None:
        """Print the line."""
        self._shown = time.monotonic()
        line = f"\r{self._bar()}{self._line()}\033[K" if sys.stderr.isatty() else f"{self._line()}\n"
        print(line, end="", file=sys.stderr, flush=True)
        self._heard(asdict(self.counts), self.waited)

    def end(self) -> int | None:
        """Print the last line; how many photos there were said to be, None where nobody could say."""
        self.show()
        if sys.stderr.isatty():
            print(file=sys.stderr)
        self._asking.join()
        return self._total

    def _bar(self) -> str:
        share = min(1.0, self.counts.done / self._total) if self._total else 0.0
        full = round(_WIDTH * share)
        return f"[{'█' * full}{'·' * (_WIDTH - full)}] "

    def _line(self) -> str:
        done, rate = self.counts.done, self.rate
        pace = (
            f", {rate:.0f}/s" if rate else ""
        )  # none after a single part: it waited for everything to start
        left = f", {_span((self._total - done) / rate)} left" if self._total and rate else ""
        return (
            f"{done} of {self._total or '?'} photos{pace}{left};"
            f" {self.counts.quarantined} quarantined, {self.counts.failed} failed;"
            f" the encoder waited {self.waited:.0%}"
        )

    def _ask(self, count: Callable[[], int]) -> None:
        try:
            self._total = count()
        except InputError as error:  # the walk that embeds may meet the same, or not any more
            log.warning("the photos cannot be counted: %s", error)


def _span(seconds: float) -> str:
    minutes, seconds = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
