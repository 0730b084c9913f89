"""Where a run's time goes: the first worker watched by torch's profiler, or from outside by py-spy."""

import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import getpid
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from stbir.data.storage import Folder

WAIT, WARM_UP, ACTIVE = 3, 1, 20  # steps
SECONDS = 60  # of py-spy
PROFILE = "profile"
Tick = Callable[[], None]  # after each step


def _nothing() -> None: ...


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
    """A minute of stacks for speedscope.app. Tracing another process takes root, or CAP_SYS_PTRACE."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "stacks.json")
        options = ["--duration", str(SECONDS), "--format", "speedscope", "--output", str(path)]
        process = subprocess.Popen(["py-spy", "record", "--pid", str(getpid()), *options])
        try:
            yield _nothing
        finally:
            process.send_signal(signal.SIGINT)  # it writes what it has; none where it has ended
            process.wait()
            if path.exists():
                folder.write(f"{PROFILE}/py-spy.json", path.read_bytes())


KINDS = {"torch": _torch, "py-spy": _py_spy}
