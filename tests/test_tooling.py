"""Development tooling: make targets, continuous integration, the lock file, the licence."""

import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

TARGETS = {
    "help",
    "setup",
    "demo",
    "search",
    "test",
    "test-on-ray",
    "test-off-ray",
    "test-fast",
    "test-cluster",
    "chaos",
    "format",
    "lint",
    "types",
    "lock",
    "clean",
}


def _make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_make_lists_all_targets() -> None:
    listed = re.findall(r"^  make (\S+) +(\S.+)$", _make().stdout, re.MULTILINE)
    assert {name for name, _ in listed} == TARGETS


def test_missing_python_has_a_clear_error() -> None:
    completed = _make("--always-make", "PYTHON=", "VENV=out/no-such-environment", "setup")
    assert completed.returncode == 2
    assert "no Python 3.11 or newer on PATH" in completed.stderr


def test_continuous_integration_runs_the_make_targets() -> None:
    code = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if not line.startswith("#")]
    assert code[-1] == "exec make test"
    plan = _make("--dry-run", "--always-make", "test").stdout
    assert all(step in plan for step in ("ruff format --check", "ruff check", "mypy", "-m pytest"))


def _lock() -> str:
    return (ROOT / "requirements.lock").read_text()


def test_packages_are_compiled_to_bytecode() -> None:
    """Otherwise each process compiles them where Python may not write bytecode."""
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    assert Path(importlib.util.cache_from_source(spec.origin)).is_file()


def test_lock_has_hashes_and_no_urls() -> None:
    lines = [line for line in _lock().splitlines() if not line.lstrip().startswith("#")]
    assert not [
        line for line in lines if "://" in line or line.startswith(("--index", "-i ", "--find-links"))
    ]
    pins = re.findall(r"^\S+==\S+.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)*", "\n".join(lines), re.MULTILINE)
    assert pins
    assert [pin.split()[0] for pin in pins if "--hash=" not in pin] == []


def _requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [
        Requirement(line)
        for line in (*project["project"]["dependencies"], *project["dependency-groups"]["dev"])
    ]


@pytest.mark.parametrize("requirement", _requirements(), ids=lambda requirement: requirement.name)
def test_lock_satisfies_the_requirements(requirement: Requirement) -> None:
    pins = {canonicalize_name(n): v for n, v in re.findall(r"^([\w.-]+)==([^\s;]+)", _lock(), re.MULTILINE)}
    assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_licence_file_matches_the_metadata() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "LICENSE").read_text()
    assert project["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
