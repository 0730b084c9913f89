"""Request deadlines: work that no client waits for any more is not started.

Machines' clocks differ, so a message carries a budget: the seconds left when it is sent. Its receiver counts
them on its own monotonic clock.
"""

import time
from dataclasses import dataclass
from typing import NoReturn


class DeadlineExceededError(Exception):
    """The deadline passed before the work began."""


@dataclass(frozen=True)
class Deadline:
    """The end of a budget on the monotonic clock of this process, in seconds."""

    start_s: float
    end_s: float

    @classmethod
    def after(cls, budget_s: float) -> "Deadline":
        """The deadline `budget_s` seconds from now; infinity: none."""
        now_s = time.monotonic()
        return cls(now_s, now_s + budget_s)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the budget was received."""
        return time.monotonic() - self.start_s

    @property
    def remaining_s(self) -> float:
        """Seconds left, the budget to send on; negative after the deadline."""
        return self.end_s - time.monotonic()

    def error(self) -> DeadlineExceededError | None:
        """An error if the deadline has passed."""
        delay_s = -self.remaining_s
        return DeadlineExceededError(f"{delay_s:.3f} s past the deadline") if delay_s >= 0 else None

    def check(self) -> None:
        """Raises DeadlineExceededError if the deadline has passed."""
        if error := self.error():
            raise error

    def __reduce__(self) -> NoReturn:
        raise TypeError("a deadline counts on the clock of its process; send `remaining_s`")


def elapsed_ms(start: float) -> float:
    """Milliseconds since `start`, a value of `time.perf_counter`."""
    return round((time.perf_counter() - start) * 1000, 2)
