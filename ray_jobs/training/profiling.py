"""Profiling of the first worker, with torch's profiler or with py-spy from outside."""

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
STACKS_FILE, ERROR_FILE = f"{PROFILE}/py-spy.json", f"{PROFILE}/py-spy.txt"
_PERMISSION_HINT = "tracing needs root or CAP_SYS_PTRACE on the worker's node"
StepCallback = Callable[[], None]  # called after each step


def check_profiler(kind: str | None) -> None:
    """Raises InputError if the profiler is not installed here."""
    if kind == "py-spy" and _py_spy_path() is None:
        raise InputError("--profile: py-spy is not installed; pip install py-spy, or give --profile torch")


@contextmanager
def profile_run(kind: str | None, out: str) -> Iterator[StepCallback]:
    """Profile the body, which calls the yielded function after each step. Writes to `out`/profile."""
    if kind is None:
        yield lambda: None
        return
    with PROFILERS[kind](Folder(out)) as on_step:
        yield on_step


@contextmanager
def _torch(folder: Folder) -> Iterator[StepCallback]:
    """A trace of some steps for Perfetto or chrome://tracing."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    steps = schedule(wait=WAIT, warmup=WARM_UP, active=ACTIVE, repeat=1)

    def write_trace(trace: profile) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            trace.export_chrome_trace(f"{scratch}/trace.json")
            folder.write(f"{PROFILE}/torch.json", Path(scratch, "trace.json").read_bytes())

    with profile(activities=activities, schedule=steps, on_trace_ready=write_trace) as profiler:
        yield profiler.step


@contextmanager
def _py_spy(folder: Folder) -> Iterator[StepCallback]:
    """One minute of stacks for speedscope.app. If py-spy fails, the error is logged; training continues."""
    program = _py_spy_path()
    if program is None:
        _report_error(folder, "it is not installed on the worker's node")
        yield lambda: None
        return
    with tempfile.TemporaryDirectory() as scratch:
        recorder = _PySpy(program, folder, Path(scratch))
        try:
            yield recorder.poll
        finally:
            recorder.stop()


def _py_spy_path() -> str | None:
    """The path of py-spy: next to this Python, which need not be on PATH, or on PATH."""
    return shutil.which("py-spy", path=os.pathsep.join([sysconfig.get_path("scripts"), *os.get_exec_path()]))


class _PySpy:
    """A py-spy process that records this process. Its result is saved as soon as it ends."""

    def __init__(self, program: str, folder: Folder, scratch: Path) -> None:
        self._folder, self._stacks, self._stderr = folder, scratch / "stacks.json", scratch / "stderr"
        options = ["--duration", str(SECONDS), "--format", "speedscope", "--output", str(self._stacks)]
        with self._stderr.open("wb") as stderr:  # a pipe without a reader would block py-spy
            self._process = subprocess.Popen(
                [program, "record", "--pid", str(getpid()), *options],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        self._saved = False

    def poll(self) -> None:
        """Save the result if py-spy has ended."""
        if not self._saved and self._process.poll() is not None:
            self._save()

    def stop(self) -> None:
        """Stop py-spy and save the stacks recorded so far."""
        self._process.send_signal(signal.SIGINT)  # does nothing if it has ended
        self._process.wait()
        self.poll()

    def _save(self) -> None:
        self._saved = True
        if self._stacks.exists():
            self._folder.write(STACKS_FILE, self._stacks.read_bytes())
            self._folder.remove(ERROR_FILE)  # of an earlier run
        else:
            _report_error(self._folder, _reason(self._stderr.read_text(errors="replace")))


def _reason(stderr: str) -> str:
    """py-spy's error in one line, without its backtrace."""
    error = " ".join(stderr.partition("Stack backtrace:")[0].split())
    hint = f" ({_PERMISSION_HINT})" if "permission" in stderr.lower() else ""
    return f"{error}{hint}" if error else "the run ended before py-spy started"


def _report_error(folder: Folder, reason: str) -> None:
    """Log the error, and write it next to the expected stacks: a worker's log stays on its node."""
    message = f"no stacks from py-spy: {reason}"
    log.warning("%s", message)
    folder.write(ERROR_FILE, f"{message}\n".encode())


PROFILERS = {"torch": _torch, "py-spy": _py_spy}
