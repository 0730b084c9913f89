"""Where a run's time goes: the first worker watched by torch's profiler, or from outside by py-spy."""

import logging
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import getpid
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from stbir.errors import InputError
from stbir.storage.folder import Folder

log = logging.getLogger(__name__)
WAIT, WARM_UP, ACTIVE = 3, 1, 20  # steps
SECONDS = 60  # of py-spy
PROFILE = "profile"
STACKS, WHY_NONE = f"{PROFILE}/py-spy.json", f"{PROFILE}/py-spy.txt"
_MAY = "tracing takes root or CAP_SYS_PTRACE on the worker's node"
Tick = Callable[[], None]  # after each step


def _nothing() -> None: ...


def refuse_missing(kind: str | None) -> None:
    """Raises InputError where the program that would watch is not installed here."""
    if kind == "py-spy" and _program() is None:
        raise InputError("--profile: there is no py-spy here; pip install py-spy, or give --profile torch")


@contextmanager
def watched(kind: str | None, out: str) -> Iterator[Tick]:
    """Watch what runs inside; call what is given after each step. The result lies in `out`/profile."""
    with KINDS[kind](Folder(out)) if kind else _unwatched() as tick:
        yield tick


@contextmanager
def _unwatched() -> Iterator[Tick]:
    yield _nothing


@contextmanager
def _torch(folder: Folder) -> Iterator[Tick]:
    """A trace of some steps for Perfetto or chrome://tracing."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    steps = schedule(wait=WAIT, warmup=WARM_UP, active=ACTIVE, repeat=1)

    def keep(found: profile) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            found.export_chrome_trace(f"{scratch}/trace.json")
            folder.write(f"{PROFILE}/torch.json", Path(scratch, "trace.json").read_bytes())

    with profile(activities=activities, schedule=steps, on_trace_ready=keep) as profiler:
        yield profiler.step


@contextmanager
def _py_spy(folder: Folder) -> Iterator[Tick]:
    """A minute of stacks for speedscope.app. A run goes on where there can be none, and is told why."""
    program = _program()
    if program is None:
        _say_why(folder, "it is not installed on the worker's node")
        yield _nothing
        return
    with tempfile.TemporaryDirectory() as scratch:
        spy = _Spy(program, folder, Path(scratch))
        try:
            yield spy.look
        finally:
            spy.end()


def _program() -> str | None:
    """Where py-spy is: beside this Python, whose folder need not be on PATH, or on PATH."""
    return shutil.which("py-spy", path=os.pathsep.join([sysconfig.get_path("scripts"), *os.get_exec_path()]))


class _Spy:
    """py-spy at work on this process; what it leaves is kept as soon as it has ended."""

    def __init__(self, program: str, folder: Folder, scratch: Path) -> None:
        self._folder, self._stacks, self._words = folder, scratch / "stacks.json", scratch / "words"
        options = ["--duration", str(SECONDS), "--format", "speedscope", "--output", str(self._stacks)]
        with self._words.open("wb") as words:  # a pipe that nobody reads would stop it in the end
            self._process = subprocess.Popen(
                [program, "record", "--pid", str(getpid()), *options],
                stdout=subprocess.DEVNULL,
                stderr=words,
            )
        self._kept = False

    def look(self) -> None:
        """Whether it has ended; call it now and then."""
        if not self._kept and self._process.poll() is not None:
            self._keep()

    def end(self) -> None:
        """Have it write what it has."""
        self._process.send_signal(signal.SIGINT)  # none where it has ended
        self._process.wait()
        self.look()

    def _keep(self) -> None:
        self._kept = True
        if self._stacks.exists():
            self._folder.write(STACKS, self._stacks.read_bytes())
            self._folder.remove(WHY_NONE)  # of an earlier run
        else:
            _say_why(self._folder, _reason(self._words.read_text(errors="replace")))


def _reason(words: str) -> str:
    """What py-spy says before it lists its own calls, in one line."""
    said = " ".join(words.partition("Stack backtrace:")[0].split())
    may = f" ({_MAY})" if "permission" in words.lower() else ""
    return f"{said}{may}" if said else "the run ended before it had begun"


def _say_why(folder: Folder, reason: str) -> None:
    """Beside where the stacks would be, too: the log of a worker stays on its node."""
    says = f"no stacks from py-spy: {reason}"
    log.warning("%s", says)
    folder.write(WHY_NONE, f"{says}\n".encode())


KINDS = {"torch": _torch, "py-spy": _py_spy}
