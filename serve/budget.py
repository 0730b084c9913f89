"""A request's time: how much of it went, and that work which nobody waits for any more is not done."""

import time


class LateError(Exception):
    """The deadline had passed before the work began."""


def late(deadline: float) -> LateError | None:
    """The error past `deadline`, in seconds since the epoch: replicas on other machines have no other clock
    in common."""
    past = time.time() - deadline
    return LateError(f"{past:.3f} s past the deadline") if past > 0 else None


def check(deadline: float) -> None:
    """Raises LateError past `deadline`."""
    if error := late(deadline):
        raise error


def ms_since(start: float) -> float:
    """Milliseconds from `start`, of `time.perf_counter`, to now."""
    return round((time.perf_counter() - start) * 1000, 2)
