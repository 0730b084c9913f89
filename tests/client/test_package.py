"""The client as a package of its own: what it needs, what it holds, and that it stands alone."""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.source import files, imported, module, parse

OURS = ROOT / "stbir_client"
ALLOWED = {*sys.stdlib_module_names, "httpx", "stbir_client"}
BLOCKED = ("torch", "ray", "numpy", "PIL", "pydantic", "fastapi", "starlette", "stbir", "serve", "ray_jobs")


@pytest.mark.parametrize("file", files("stbir_client"), ids=module)
def test_it_imports_httpx_and_the_standard_library(file: Path) -> None:
    foreign = {name.split(".")[0] for name in imported(parse(file))} - ALLOWED
    assert foreign <= ({"PIL"} if module(file) == "stbir_client.picture" else set())


def test_it_needs_httpx_alone() -> None:
    project = tomllib.loads((OURS / "pyproject.toml").read_text())["project"]
    assert [name.split(">")[0] for name in project["dependencies"]] == ["httpx"]
    assert (OURS / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_it_runs_where_nothing_else_is_installed() -> None:
    """Blocked modules raise ImportError, as where they are missing."""
    code = f"""
import sys
sys.modules.update(dict.fromkeys({BLOCKED!r}))
import stbir_client.command
with stbir_client.Client("http://127.0.0.1:9", retries=0) as client:
    try:
        client.search(text="red")
    except stbir_client.UnreachableError:
        sys.exit(7)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30, check=False).returncode == 7


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built offline."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(build, cwd=OURS, check=True, capture_output=True, timeout=60)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_modules_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        scripts = archive.read(next(n for n in archive.namelist() if n.endswith("entry_points.txt"))).decode()
    ours = {str(file.relative_to(ROOT)) for file in files("stbir_client")}
    assert names == ours | {"stbir_client/py.typed"}
    assert "stbir = stbir_client.command:main" in scripts.splitlines()


def test_the_wheel_works_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "import json, stbir_client as c; print(json.dumps([c.__file__, c.__version__]))"
    command = [sys.executable, "-P", "-c", code]
    path = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=path, capture_output=True, text=True, check=True, timeout=30
    )
    where, version = json.loads(done.stdout)
    assert Path(where).parent == tmp_path / "stbir_client"
    assert wheel.name.startswith(f"stbir_client-{version}-")
