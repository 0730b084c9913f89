"""A request's time: how much of it went, and that work which nobody waits for any more is not done."""

import time


class DeadlineExceededError(Exception):
    """The deadline had passed before the work began."""


def deadline_error(deadline: float) -> DeadlineExceededError | None:
    """The error past `deadline`, in seconds since the epoch: replicas on other machines have no other clock
    in common."""
    past = time.time() - deadline
    return DeadlineExceededError(f"{past:.3f} s past the deadline") if past > 0 else None


def check_deadline(deadline: float) -> None:
    """Raises LateError past `deadline`."""
    if error := deadline_error(deadline):
        raise error


def elapsed_ms(start: float) -> float:
    """Milliseconds from `start`, of `time.perf_counter`, to now."""
    return round((time.perf_counter() - start) * 1000, 2)
