"""`python -m tests.chaos.clock DELAY_S FILE ARGUMENTS` runs a script whose wall clock jumps ahead.

Python's `time.time` and `time.time_ns` of this process jump by 30 s after the delay; `datetime` does not.
"""

import runpy
import sys
import time

JUMP_S = 30


def jump_after(delay_s: float) -> None:
    """Replace the wall clock of this process."""
    clock, clock_ns, jump_at_s = time.time, time.time_ns, time.monotonic() + delay_s

    def jump() -> int:
        return JUMP_S if time.monotonic() >= jump_at_s else 0

    time.time = lambda: clock() + jump()
    time.time_ns = lambda: clock_ns() + jump() * 10**9


if __name__ == "__main__":
    jump_after(float(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
