"""Faults reach real processes, and end."""

import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from threading import Thread

import psutil
import pytest

from tests.chaos import faults
from tests.chaos.clock import JUMP_S
from tests.conftest import ROOT, wait_until

# Writes to a file again and again; prints the time and the error number of each attempt, 0 for none.
WRITER = """
import pathlib, sys, time
while True:
    error_number = 0
    try:
        pathlib.Path(sys.argv[1]).write_text("data")
    except OSError as error:
        error_number = error.errno
    print(time.monotonic(), error_number, flush=True)
    time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def short_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "FAULT_S", 0.5)


def attempts_around(kind: str, file: Path) -> list[tuple[float, int]]:
    """Time and error number of the attempts before, during and after a fault."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, file], stdout=subprocess.PIPE, text=True)
    attempts: list[tuple[float, int]] = []

    def read_attempts() -> None:
        for line in process.stdout or ():
            moment, error_number = line.split()
            attempts.append((float(moment), int(error_number)))

    reader = Thread(target=read_attempts)
    reader.start()
    wait_until(lambda: len(attempts) > 3, "attempts before the fault")
    faults.inject(kind, [psutil.Process(process.pid)], storage=None)  # type: ignore[arg-type]
    count = len(attempts)
    wait_until(lambda: len(attempts) > count + 3 or process.poll() is not None, "attempts after the fault")
    process.kill()
    process.communicate()
    reader.join()
    return attempts


def test_full_disk_fails_writes_until_it_ends(tmp_path: Path) -> None:
    numbers = [number for _, number in attempts_around("disk_full", tmp_path / "file")]
    assert numbers[0] == numbers[-1] == 0
    assert any(numbers)


def test_stopped_process_continues(tmp_path: Path) -> None:
    times = [moment for moment, _ in attempts_around("stop", tmp_path / "file")]
    assert max(later - earlier for earlier, later in pairwise(times)) >= 0.4


def test_killed_process_ends() -> None:
    process = subprocess.Popen(["sleep", "60"])
    faults.inject("kill", [psutil.Process(process.pid)], storage=None)  # type: ignore[arg-type]
    assert process.wait(timeout=10) == -signal.SIGKILL


def test_clock_of_a_script_jumps(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys, time; print(time.time(), time.time_ns(), sys.argv[1])")
    command = [sys.executable, "-m", "tests.chaos.clock", "0", str(script), "argument"]
    start = time.time()
    stdout = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    seconds, nanoseconds, argument = stdout.split()
    for value in (float(seconds), int(nanoseconds) / 1e9):
        assert start + JUMP_S <= value <= time.time() + JUMP_S
    assert argument == "argument"
