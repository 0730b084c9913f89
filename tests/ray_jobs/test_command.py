"""What every command promises: exit codes 0, 1, 2, one line of JSON last, no traceback for bad input."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_jobs import cli as commands
from ray_jobs.cluster import connection
from stbir.errors import InputError
from tests.conftest import ROOT, free_port


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sum")
    parser.add_argument("--numbers", type=int, nargs="+", required=True)
    return parser


def _main(arguments: argparse.Namespace) -> dict[str, Any]:
    print("adding")
    if any(number < 0 for number in arguments.numbers):
        raise InputError("--numbers: one is negative; give none below 0")
    total = sum(arguments.numbers)
    if total > 10:
        raise commands.Failed("more than 10", {"total": total})
    return {"total": total}


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sum", *arguments])
    try:
        commands.run(_main, _parser())
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_done_is_0_and_json_comes_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "--numbers", "1", "2") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"total": 3}


def test_a_bad_result_is_1_and_still_has_its_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "--numbers", "9", "9") == 1
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1]) == {"total": 18}
    assert err == "sum: more than 10\n"


def test_bad_input_is_2_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "--numbers", "-1") == 2
    assert capsys.readouterr().err == "sum: --numbers: one is negative; give none below 0\n"


def test_a_wrong_argument_is_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, "--numbers", "x") == 2
    assert "--numbers" in capsys.readouterr().err


def test_another_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sum", "--numbers", "1"])

    def broken(arguments: argparse.Namespace) -> dict[str, Any]:
        raise KeyError("a fault of ours")

    with pytest.raises(KeyError, match="a fault of ours"):
        commands.run(broken, _parser())


CONNECTS = """
import argparse
from ray_jobs.cli import run
from ray_jobs.cluster.connection import connect
run(lambda _: connect() or {}, argparse.ArgumentParser(prog="connects"))
"""


def test_a_cluster_that_does_not_answer_is_2(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    done = subprocess.run(
        [sys.executable, "-c", CONNECTS], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"RAY_ADDRESS: {address}: no Ray cluster answers there; start" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("late", "starts"), [(0, 1), (2, 3)])
def test_a_ray_that_is_late_is_started_again(monkeypatch: pytest.MonkeyPatch, late: int, starts: int) -> None:
    tried: list[str] = []

    def start(address: str, **options: object) -> None:
        tried.append(address)
        if len(tried) <= late:
            raise Exception("The current node timed out during startup. This could happen because …")

    monkeypatch.setattr("ray.init", start)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    connection.join()
    assert tried == ["local"] * starts


@pytest.mark.parametrize(
    ("said", "starts"),
    [("The current node timed out during startup.", connection.STARTS), ("no room on /dev/shm", 1)],
)
def test_a_ray_that_does_not_start_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch, said: str, starts: int
) -> None:
    tried: list[str] = []

    def start(address: str, **options: object) -> None:
        tried.append(address)
        raise Exception(said)

    monkeypatch.setattr("ray.init", start)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(Exception, match=said):
        connection.join()
    assert len(tried) == starts


def test_the_code_of_a_job_is_counted_without_what_python_adds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "package" / "__pycache__").mkdir(parents=True)
    (tmp_path / "main.py").write_bytes(b"x" * 2**20)
    (tmp_path / "package" / "module.py").write_bytes(b"x" * 2**19)
    (tmp_path / "package" / "__pycache__" / "module.pyc").write_bytes(b"x" * 2**20)
    monkeypatch.chdir(tmp_path)
    environment: dict[str, str] = {}
    context = SimpleNamespace(runtime_env=environment)
    monkeypatch.setattr(connection.ray, "get_runtime_context", lambda: context)
    connection._say_code()
    assert capsys.readouterr().err == ""
    environment["working_dir"] = "gcs://_ray_pkg_0.zip"
    connection._say_code()
    assert capsys.readouterr().err == "code of this job: 2 files, 1.5 MiB\n"


def test_a_command_joins_the_cluster_it_is_told_of(ray_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)
    counts = CONNECTS.replace("connect() or {}", "connect() or _nodes()")
    nodes = "import ray\ndef _nodes():\n    return {'ids': sorted(n['NodeID'] for n in ray.nodes())}\n"
    done = subprocess.run(
        [sys.executable, "-c", nodes + counts], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    import ray

    assert done.returncode == 0, done.stderr
    assert "code of this job" not in done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"ids": sorted(n["NodeID"] for n in ray.nodes())}
