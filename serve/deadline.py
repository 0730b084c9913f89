"""Request deadlines: replicas drop work that no client waits for any more."""

import time


class DeadlineExceededError(Exception):
    """The deadline passed before the work began."""


def deadline_error(deadline: float) -> DeadlineExceededError | None:
    """An error if `deadline` has passed. It is in seconds since the epoch: machines share no other clock."""
    delay_s = time.time() - deadline
    return DeadlineExceededError(f"{delay_s:.3f} s past the deadline") if delay_s > 0 else None


def check_deadline(deadline: float) -> None:
    """Raises DeadlineExceededError if `deadline` has passed."""
    if error := deadline_error(deadline):
        raise error


def elapsed_ms(start: float) -> float:
    """Milliseconds since `start`, a value of `time.perf_counter`."""
    return round((time.perf_counter() - start) * 1000, 2)
