"""Shared behaviour of all commands: exit codes, JSON output, retired options, connection to Ray."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from ray_jobs import cli
from ray_jobs.cluster import connection
from stbir.errors import InputError, JobFailedError
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
        raise JobFailedError("more than 10", {"total": total})
    return {"total": total}


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code. Ray's warnings come until it is shut down; that of the tests must stay."""
    monkeypatch.setattr(sys, "argv", ["sum", *arguments])
    shutdown = lambda: print("(raylet) WARNING: many processes")  # noqa: E731
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(shutdown=shutdown))  # type: ignore[arg-type]
    try:
        cli.run(_main, _parser())
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_success_exits_0_and_prints_json_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "--numbers", "1", "2") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"total": 3}


def test_failed_job_exits_1_and_prints_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "--numbers", "9", "9") == 1
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1]) == {"total": 18}
    assert err == "sum: more than 10\n"


def test_invalid_input_exits_2_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "--numbers", "-1") == 2
    assert capsys.readouterr().err == "sum: --numbers: one is negative; give none below 0\n"


def test_invalid_argument_exits_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "--numbers", "x") == 2
    assert "--numbers" in capsys.readouterr().err


def test_other_exceptions_propagate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sum", "--numbers", "1"])

    def broken(arguments: argparse.Namespace) -> dict[str, Any]:
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        cli.run(broken, _parser())


@pytest.mark.parametrize("arguments", [["--count", "3"], ["--count=3"], ["--count"]])
def test_retired_option_exits_2_and_names_the_new_one(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    parser = _parser()
    cli.add_retired(parser, {"--count": "--numbers"})
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args([*arguments, "--numbers", "1"])
    assert capsys.readouterr().err == "sum: --count is now --numbers\n"
    assert "--count" not in parser.format_help()


def test_retired_options_match_no_prefix_and_leave_the_namespace(capsys: pytest.CaptureFixture[str]) -> None:
    parser = _parser()
    cli.add_resource_timeout(parser)
    assert vars(parser.parse_args(["--numbers", "1"])) == {"numbers": [1], "resource_timeout": 900}
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--numbers", "1", "--wai", "3"])
    assert "unrecognized arguments: --wai" in capsys.readouterr().err


def test_unreachable_cluster_exits_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(sys, "argv", ["connect"])
    with pytest.raises(SystemExit, match="2"):
        cli.run(lambda _: connection.init_ray() or {}, argparse.ArgumentParser(prog="connect"))
    reason = f"RAY_ADDRESS: {address}: no Ray cluster answers there; start that cluster or unset it"
    assert capsys.readouterr() == ("", f"connect: {reason}\n")


@pytest.mark.parametrize("timeouts", [0, 2])
def test_ray_start_is_retried_after_a_timeout(monkeypatch: pytest.MonkeyPatch, timeouts: int) -> None:
    attempts: list[str] = []

    def start(address: str, **options: object) -> None:
        attempts.append(address)
        if len(attempts) <= timeouts:
            raise Exception("The current node timed out during startup. This could happen because …")

    monkeypatch.setattr("ray.init", start)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    connection.init_ray()
    assert attempts == ["local"] * (timeouts + 1)


def test_late_ray_start_is_invalid_input_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(address: str, **options: object) -> None:
        time.sleep(0.1)
        raise RuntimeError("Timed out waiting for file gcs_server_port")

    monkeypatch.setattr("ray.init", start)
    monkeypatch.setattr(connection, "START_TIMEOUT_S", 0.25)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    begin = time.monotonic()
    with pytest.raises(InputError, match=r"^Ray: .* this machine is busy; .* set RAY_ADDRESS"):
        connection.init_ray()
    assert time.monotonic() - begin < 2


@pytest.mark.slow(reason="a process that imports Ray")
def test_ray_start_that_does_not_return_ends_the_process_in_time() -> None:
    """Ray may wait in a C++ function, where no exception can be raised."""
    hang = """
import sys, time, ray
from ray_jobs.cluster import connection
ray.init, connection.START_TIMEOUT_S = lambda *_, **__: time.sleep(60), 0.2
connection.init_ray()
"""
    completed = subprocess.run(
        [sys.executable, "-c", hang], cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    assert completed.returncode == 2
    assert completed.stderr.startswith("-c: Ray: its processes do not start within")


def test_other_error_of_the_ray_start_propagates(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(address: str, **options: object) -> None:
        raise ValueError("no room on /dev/shm")

    monkeypatch.setattr("ray.init", start)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ValueError, match="no room"):
        connection.init_ray()


def test_code_size_excludes_python_caches(
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
    connection._print_code_size()
    assert capsys.readouterr().err == ""
    environment["working_dir"] = "gcs://_ray_pkg_0.zip"
    connection._print_code_size()
    assert capsys.readouterr().err == "code of this job: 2 files, 1.5 MiB\n"


CONNECT = """
import argparse, ray
from ray_jobs.cli import run
from ray_jobs.cluster.connection import connect
def main(_):
    connect()
    return {"ids": sorted(node["NodeID"] for node in ray.nodes())}
run(main, argparse.ArgumentParser(prog="connect"))
"""


def test_command_connects_to_ray_address(ray_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)
    completed = subprocess.run(
        [sys.executable, "-c", CONNECT], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert completed.returncode == 0, completed.stderr
    assert "code of this job" not in completed.stderr
    node_ids = sorted(node["NodeID"] for node in ray.nodes())
    assert json.loads(completed.stdout.splitlines()[-1]) == {"ids": node_ids}


@pytest.mark.parametrize(
    ("variable", "options", "backend"),
    [(None, [], "auto"), ("torch", [], "torch"), ("torch", ["--backend", "auto"], "auto")],
)
def test_backend_is_that_of_the_option_then_of_the_environment(monkeypatch, variable, options, backend):
    monkeypatch.delenv("STBIR_BACKEND", raising=False)
    if variable:
        monkeypatch.setenv("STBIR_BACKEND", variable)
    cli.add_backend(parser := argparse.ArgumentParser())
    assert parser.parse_args(options).backend == backend


def test_unknown_backend_in_the_environment_is_refused_in_one_line(monkeypatch, capsys):
    monkeypatch.setenv("STBIR_BACKEND", "tensorrt")
    with pytest.raises(SystemExit, match="2"):
        cli.add_backend(argparse.ArgumentParser(prog="evaluate"))
    assert capsys.readouterr().err == (
        "evaluate: STBIR_BACKEND: no backend 'tensorrt'; use one of auto, torch, openvino, onnxruntime\n"
    )
