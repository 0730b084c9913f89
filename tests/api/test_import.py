"""`import stbir` is light, its names are the documented ones, and the examples of its docstrings work."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import stbir
from tests.conftest import ROOT

MAX_MODULES = 40  # that `import stbir` adds: importlib, typing and what these import
LAZY = """
import sys
before = set(sys.modules)
import stbir
added = set(sys.modules) - before
print(len(added), *sorted({"numpy", "torch", "lance", "pyarrow", "PIL", "pydantic"} & added))
stbir.InputError
assert "numpy" not in sys.modules
stbir.Condition
assert "torch" not in sys.modules
"""


def test_import_is_light_and_torch_loads_with_a_model_only() -> None:
    output = subprocess.run(
        [sys.executable, "-c", LAZY], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert int(output[0]) <= MAX_MODULES
    assert output[1:] == []


def test_every_public_name_can_be_imported() -> None:
    assert set(dir(stbir)) == set(stbir.__all__) == set(stbir._MODULES)
    for name in stbir.__all__:
        assert getattr(stbir, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'stbir' has no attribute 'serach'"):
        _ = stbir.serach  # type: ignore[attr-defined]


def test_examples_of_the_docstring(
    checkpoint_uri: str, photos: Path, sketch_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoint").symlink_to(checkpoint_uri)
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(stbir, raise_on_error=True)
    assert results.attempted > 5
