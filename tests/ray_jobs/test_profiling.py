"""py-spy records this process; its stacks, or the reason for their absence, are written."""

import json
import logging
import subprocess
import time
from pathlib import Path

import pytest

from ray_jobs.training import profiling
from ray_jobs.training.profiling import ERROR_FILE, STACKS_FILE, check_profiler, profile_run
from stbir.errors import InputError
from stbir.storage.folder import Folder


def run_steps(seconds: float, on_step: profiling.StepCallback, out: Path) -> None:
    """Run steps for that time, or until py-spy has written a file into `out`."""
    deadline = time.monotonic() + seconds
    results = (out / STACKS_FILE, out / ERROR_FILE)
    while time.monotonic() < deadline and not any(path.exists() for path in results):
        sum(range(10_000))
        on_step()


def function_names(out: Path) -> set[str]:
    """The functions in the recorded stacks. Skips the test if tracing is not permitted."""
    error = out / ERROR_FILE
    if error.exists() and "ermission" in error.read_text():
        pytest.skip(error.read_text())
    assert not error.exists(), error.read_text()
    return {frame["name"] for frame in json.loads((out / STACKS_FILE).read_bytes())["shared"]["frames"]}


def test_stacks_are_written_as_soon_as_py_spy_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "SECONDS", 2)
    with profile_run("py-spy", str(tmp_path)) as on_step:
        run_steps(120, on_step, tmp_path)
        assert "run_steps" in function_names(tmp_path)


def test_short_run_writes_the_stacks_recorded_so_far(tmp_path: Path) -> None:
    for seconds in (5, 20, 60):  # py-spy starts slowly on a busy machine
        Folder(str(tmp_path)).write(ERROR_FILE, b"of an earlier run")
        with profile_run("py-spy", str(tmp_path)):
            run_steps(seconds, lambda: None, tmp_path / "elsewhere")
        if (tmp_path / STACKS_FILE).exists():
            break
    assert "run_steps" in function_names(tmp_path)


def test_error_of_py_spy_is_logged_and_the_run_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    monkeypatch.setattr(profiling, "getpid", lambda: ended.pid)
    with profile_run("py-spy", str(tmp_path)) as on_step:
        run_steps(60, on_step, tmp_path)
        [record] = caplog.records  # already during the run
    assert record.levelno == logging.WARNING
    message = "no stacks from py-spy: Error: Failed to get process executable name. Check that the process is"
    assert record.getMessage().startswith(message)
    assert (tmp_path / ERROR_FILE).read_text() == f"{record.getMessage()}\n"
    assert len(caplog.records) == 1


def test_permission_error_names_the_remedy() -> None:
    stderr = "Error: No name.\n\nCaused by:\n  Permission denied (os error 13)\n\nStack backtrace:\n 0: x\n"
    assert profiling._reason(stderr) == (
        "Error: No name. Caused by: Permission denied (os error 13)"
        " (tracing needs root or CAP_SYS_PTRACE on the worker's node)"
    )
    assert profiling._reason("") == "the run ended before py-spy started"


def test_py_spy_next_to_python_is_used_even_if_it_is_not_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert Path(profiling._py_spy_path() or "").name == "py-spy"
    check_profiler("py-spy")


def test_run_continues_if_py_spy_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "_py_spy_path", lambda: None)
    with profile_run("py-spy", str(tmp_path)) as on_step:
        on_step()
    assert "it is not installed on the worker's node" in (tmp_path / ERROR_FILE).read_text()
    check_profiler("torch")
    check_profiler(None)
    with pytest.raises(InputError, match="--profile: py-spy is not installed; pip install py-spy, or give"):
        check_profiler("py-spy")
