"""The wheel and the sdist: what they contain, and that an installed wheel works without the repository."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.source import PACKAGES

pytestmark = pytest.mark.slow(reason="builds the distributions, and an environment with one of them")
# Of the client's own distribution, which is built from the same folder.
CLIENT_ONLY = {f"stbir_client/{name}" for name in ("pyproject.toml", "README.md", "LICENSE")}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist, built offline."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(out)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    [wheel], [sdist] = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def tracked(*folders: str) -> set[str]:
    """The files that git has, or would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


def test_wheel_has_all_files_of_the_packages(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[0]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == tracked(*PACKAGES) - CLIENT_ONLY


def test_sdist_builds_and_holds_no_tests(distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked(*PACKAGES) <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert {name for name in names if name.startswith(("tests/", "docs/", ".venv"))} == set()


@pytest.fixture(scope="module")
def installed(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel alone."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, str(distributions[0])], check=True, timeout=120)
    return environment / "bin"


def run(folder: Path, *command: str, **variables: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        command,
        cwd=folder,
        env={**inherited, **variables},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout


def test_an_installed_wheel_works_outside_the_repository(installed: Path, tmp_path: Path) -> None:
    """`import stbir` needs no other package. The rest gets the dependencies of this environment."""
    python, code = str(installed / "python"), "import stbir; print(stbir.__file__)"
    assert Path(run(tmp_path, python, "-c", code).strip()).is_relative_to(installed.parent)
    packages = sysconfig.get_path("purelib")  # as PYTHONPATH: its .pth files, and so this project, stay out
    assert "usage: stbir" in run(tmp_path, str(installed / "stbir"), "--help", PYTHONPATH=packages)
    code = "import serve.wiring, ray_jobs.train as t; print(serve.wiring.__file__); t.parser().print_usage()"
    file, usage = run(tmp_path, python, "-c", code, PYTHONPATH=packages).splitlines()[:2]
    assert Path(file).is_relative_to(installed.parent)
    assert usage.startswith("usage: train.py")
