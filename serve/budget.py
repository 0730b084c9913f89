"""A request's time: work that nobody waits for any more is not done."""

import time


class LateError(Exception):
    """The deadline had passed before the work began."""


def check(deadline: float) -> None:
    """Raises LateError past `deadline`, in seconds since the epoch: replicas on other machines have no other
    clock in common."""
    if time.time() > deadline:
        raise LateError(f"{time.time() - deadline:.3f} s past the deadline")
