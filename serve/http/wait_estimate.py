"""How long one more search would wait: the searches ahead of it, times the seconds that each takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

_WEIGHT = 0.1  # of one search in the moving average
# Searches in progress at the start of another from which its duration tells the throughput: alone, a search
# takes as long as several that share their batches.
_MIN_AHEAD = 8


class WaitEstimate:
    """The searches in progress, and a moving average of the seconds that each adds to the wait."""

    def __init__(self) -> None:
        self._num_in_progress, self._seconds_each = 0, 0.0

    @property
    def seconds(self) -> float:
        """The expected duration of a search that starts now; 0 while none is in progress."""
        return self._num_in_progress * self._seconds_each

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Measures a search, from its parsed request to its hits. One that is cancelled, as at its deadline,
        took at least as long."""
        num_ahead, start_s = self._num_in_progress, time.monotonic()
        self._num_in_progress += 1
        is_finished = False
        try:
            yield
            is_finished = True
        except Exception:  # a refused sketch has waited, too
            is_finished = True
            raise
        finally:
            self._num_in_progress -= 1
            self._add((time.monotonic() - start_s) / (num_ahead + 1), is_finished, num_ahead)

    def _add(self, seconds_each: float, is_finished: bool, num_ahead: int) -> None:
        is_slower = seconds_each > self._seconds_each
        if num_ahead >= _MIN_AHEAD if is_slower else is_finished:
            self._seconds_each += _WEIGHT * (seconds_each - self._seconds_each)
