"""py-spy on this very process: its stacks are kept, and where there are none the reason is."""

import json
import logging
import subprocess
import time
from pathlib import Path

import pytest

from ray_jobs.training import profiling
from ray_jobs.training.profiling import STACKS, WHY_NONE, refuse_missing, watched
from stbir.errors import InputError
from stbir.storage.folder import Folder


def spin_a_while(seconds: float, tick: profiling.Tick, out: Path) -> None:
    """Steps of work for so long, or until one of them says what came of the watching."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not any((out / name).exists() for name in (STACKS, WHY_NONE)):
        sum(range(10_000))
        tick()


def names(out: Path) -> set[str]:
    """The functions in the stacks that were kept; the test is skipped where tracing is not allowed."""
    why = out / WHY_NONE
    if why.exists() and "ermission" in why.read_text():
        pytest.skip(why.read_text())
    assert not why.exists(), why.read_text()
    return {frame["name"] for frame in json.loads((out / STACKS).read_bytes())["shared"]["frames"]}


def test_stacks_are_there_as_soon_as_their_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "SECONDS", 2)
    with watched("py-spy", str(tmp_path)) as tick:
        spin_a_while(120, tick, tmp_path)
        assert "spin_a_while" in names(tmp_path)


def test_a_run_that_ends_sooner_keeps_what_there_is(tmp_path: Path) -> None:
    for seconds in (5, 20, 60):  # a busy machine takes its time to begin
        Folder(str(tmp_path)).write(WHY_NONE, b"of the run before")
        with watched("py-spy", str(tmp_path)):
            spin_a_while(seconds, lambda: None, tmp_path / "elsewhere")
        if (tmp_path / STACKS).exists():
            break
    assert "spin_a_while" in names(tmp_path)


def test_a_run_that_may_not_be_watched_goes_on_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    monkeypatch.setattr(profiling, "getpid", lambda: gone.pid)
    with watched("py-spy", str(tmp_path)) as tick:
        spin_a_while(60, tick, tmp_path)
        [record] = caplog.records  # at once, not only when the run ends
    assert record.levelno == logging.WARNING
    says = "no stacks from py-spy: Error: Failed to get process executable name. Check that the process is"
    assert record.getMessage().startswith(says)
    assert (tmp_path / WHY_NONE).read_text() == f"{record.getMessage()}\n"
    assert len(caplog.records) == 1


def test_what_the_kernel_refuses_has_its_remedy() -> None:
    words = "Error: No name.\n\nCaused by:\n  Permission denied (os error 13)\n\nStack backtrace:\n 0: x\n"
    assert profiling._reason(words) == (
        "Error: No name. Caused by: Permission denied (os error 13)"
        " (tracing takes root or CAP_SYS_PTRACE on the worker's node)"
    )
    assert profiling._reason("") == "the run ended before it had begun"


def test_it_is_found_beside_python_wherever_path_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert Path(profiling._program() or "").name == "py-spy"
    refuse_missing("py-spy")


def test_where_it_is_not_installed_a_run_goes_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "_program", lambda: None)
    with watched("py-spy", str(tmp_path)) as tick:
        tick()
    assert "it is not installed on the worker's node" in (tmp_path / WHY_NONE).read_text()
    refuse_missing("torch")
    refuse_missing(None)
    with pytest.raises(InputError, match="--profile: there is no py-spy here; pip install py-spy, or give"):
        refuse_missing("py-spy")
