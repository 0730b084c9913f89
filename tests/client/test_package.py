"""The client as a separate package: dependencies, wheel, and independence from the repository."""

import json
import os
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import stbir_client
from tests.conftest import ROOT
from tests.documented_commands import documented
from tests.source import files, imported, module, parse

PACKAGE = ROOT / "stbir_client"
ALLOWED = {*sys.stdlib_module_names, "httpx", "stbir_client"}
BLOCKED = ("torch", "ray", "numpy", "PIL", "pydantic", "fastapi", "starlette", "stbir", "serve", "ray_jobs")


@pytest.mark.parametrize("file", files("stbir_client"), ids=module)
def test_imports_are_httpx_and_the_standard_library(file: Path) -> None:
    others = {name.split(".")[0] for name in imported(parse(file))} - ALLOWED
    assert others <= ({"PIL"} if module(file) == "stbir_client.terminal_images" else set())


def test_httpx_is_the_only_dependency() -> None:
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    assert [name.split(">")[0] for name in project["dependencies"]] == ["httpx"]
    assert (PACKAGE / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_client_runs_without_other_packages() -> None:
    """A None in sys.modules makes an import raise ImportError."""
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


def test_filter_is_the_former_name_of_condition() -> None:
    with pytest.warns(DeprecationWarning, match="Filter: renamed; use Condition"):
        from stbir_client import Filter
    assert Filter is stbir_client.Condition
    with pytest.raises(AttributeError, match="no attribute 'Search'"):
        stbir_client.Search  # noqa: B018


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built offline."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(build, cwd=PACKAGE, check=True, capture_output=True, timeout=60)
    (path,) = out.glob("*.whl")
    return path


def test_wheel_contains_the_modules_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        scripts = archive.read(next(n for n in archive.namelist() if n.endswith("entry_points.txt"))).decode()
    modules = {str(file.relative_to(ROOT)) for file in files("stbir_client")}
    assert names == modules | {"stbir_client/py.typed"}
    assert "stbir = stbir_client.command:main" in scripts.splitlines()


def test_installed_package_works_outside_the_repository(tmp_path: Path) -> None:
    """By the documented command, with the packages of this environment in place of an index."""
    [command] = documented("docs/serve.md", "pip install")
    uv = Path(sys.prefix, "uv").read_text().split()
    here = [
        "--offline",
        "--no-deps",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "--target",
        tmp_path,
    ]
    subprocess.run([*uv, *shlex.split(command), *here], cwd=ROOT, check=True, timeout=120)
    code = "import json, stbir_client as c; print(json.dumps([c.__file__, c.__version__]))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    path, version = json.loads(process.stdout)
    assert Path(path).parent == tmp_path / "stbir_client"
    assert (tmp_path / f"stbir_client-{version}.dist-info").is_dir()
