"""SIGINT and SIGTERM end every command, in every phase, with one line and exit code 130 or 143."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, start_training
from tests.test_architecture import COMMANDS

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
ARGUMENTS = {
    "ablate": ["--recipes", "smoke", "--shards", "s", "--out", "o"],
    "calibrate": ["--checkpoint", "c", "--shards", "s", "--out", "o"],
    "caption": ["--shards", "s", "--out", "o", "--vllm", "--model", "m"],
    "embed_gallery": ["--gallery", "g"],
    "evaluate": ["--checkpoint", "c", "--shards", "s", "--split", "test", "--out", "o"],
    "export_onnx": ["--checkpoint", "c", "--out", "o"],
    "gallery": ["versions", "g"],
    "init_checkpoint": ["--model", "m", "--pretrained", "p", "--out", "o"],
    "preflight": ["--job", "train"],
    "prepare_shards": ["--source", "synthetic:4", "--out", "o"],
    "search_batch": ["--checkpoint", "c", "--gallery", "g", "--queries", "q", "--out", "o"],
    "train": ["--recipe", "smoke", "--shards", "s", "--out", "o"],
}
# Runs a command, and stops in the import of a module until a signal arrives.
STOP_AT_IMPORT = """
import runpy, sys, time
module, *sys.argv = sys.argv[1:]
class Finder:
    def find_spec(self, name, *_):
        if name == module:
            print("importing", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Finder())
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# Like a library that catches every exception.
CATCH_ALL = """
import time
from ray_jobs.interrupts import handle_interrupts
handle_interrupts()
print("running", flush=True)
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
"""
CONNECT = """
import argparse
from ray_jobs.interrupts import handle_interrupts
handle_interrupts()
from ray_jobs.cli import run
from ray_jobs.cluster.connection import connect
run(lambda _: connect() or {}, argparse.ArgumentParser(prog="connect"))
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        # A test run in the background of a script inherits an ignored SIGINT.
        ["env", "--default-signal=INT", sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupt(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Exit code and standard error after the signal."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def line(command: str, number: signal.Signals) -> str:
    return f"{command}: interrupted ({number.name}); run the same command again to continue\n"


@pytest.mark.parametrize(("module", "number"), [("argparse", signal.SIGINT), ("job", signal.SIGTERM)])
@pytest.mark.parametrize("name", COMMANDS)
def test_signal_during_imports(name: str, module: str, number: signal.Signals) -> None:
    module = f"ray_jobs.jobs.{name}" if module == "job" else module
    process = start(STOP_AT_IMPORT, module, f"ray_jobs/{name}.py", *ARGUMENTS[name])
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n", process.communicate()[1]
    assert interrupt(process, number) == (EXIT_CODES[number], line(f"{name}.py", number))


@pytest.mark.parametrize("number", EXIT_CODES)
def test_signal_ends_a_process_that_catches_every_exception(number: signal.Signals) -> None:
    process = start(CATCH_ALL)
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    started = time.monotonic()
    assert interrupt(process, number) == (EXIT_CODES[number], line("-c", number))
    assert time.monotonic() - started < 6


@pytest.mark.slow(reason="starts the processes of a Ray")
def test_sigterm_while_ray_waits_for_a_late_process() -> None:
    process = start(CONNECT)
    gcs = stop_child(process, "gcs_server")
    try:
        started = time.monotonic()
        assert interrupt(process, signal.SIGTERM) == (143, line("-c", signal.SIGTERM))
        assert time.monotonic() - started < 6
        assert gcs.wait(10) is None  # ended with the process that started it
    finally:
        process.kill()


def stop_child(process: subprocess.Popen[str], name: str) -> psutil.Process:
    """Stop (SIGSTOP) the first descendant whose command line contains `name`, when it starts."""
    while process.poll() is None:
        for child in descendants(process.pid):
            if any(name in word for word in command_line(child)):
                child.suspend()
                return child
        time.sleep(0.02)
    pytest.fail(f"ended before {name} started: {process.communicate()[1]}")


def descendants(pid: int) -> Sequence[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@pytest.mark.slow(reason="two training runs in processes of their own")
def test_interrupted_training_resumes(ray_cluster: str, local_shards: str, tmp_path: Path) -> None:
    arguments = ["--recipe", "smoke", "--shards", local_shards, "--out", str(tmp_path / "checkpoint")]
    arguments += ["--set", "stages.*.epochs=8"]  # more than it can train before the signal arrives
    for number, awaited in ((signal.SIGINT, " epoch 1"), (signal.SIGTERM, "resuming after step")):
        run = start_training(ray_cluster, *arguments)
        assert run.stderr is not None
        assert any(awaited in read for read in run.stderr)
        code, errors = interrupt(run, number)
        assert code == EXIT_CODES[number]
        assert "Traceback" not in errors
        assert line("train.py", number) in errors
