"""Sizes and names of packages, modules and functions."""

import ast
import statistics
from pathlib import Path

import pytest

from tests.source import PACKAGES, files, functions, module, parse

VAGUE_NAMES = {
    *("util", "utils", "common", "helper", "helpers", "misc", "manager", "managers", "tools", "stuff")
}
MAX_LINES = 250
# Base classes that torch, Ray, other libraries or the type system require; exceptions are allowed too.
ALLOWED_BASES = {
    *("nn.Module", "torch.autograd.Function", "ExecutionCallback", "DataConfig", "BaseModel"),
    *("Protocol", "NamedTuple", "TypedDict", "Generic", "argparse.Action", "LRUCache", "TorchTrainer"),
    *("AbstractFileSystem", "io.BytesIO"),
}


def _lengths() -> list[int]:
    """Lines of each function, from `def` to its end."""
    nodes = [node for file in files(*PACKAGES) for node in functions(parse(file))]
    return [(node.end_lineno or node.lineno) - node.lineno + 1 for node in nodes]


@pytest.mark.parametrize("file", files(*PACKAGES), ids=module)
def test_files_are_small(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= MAX_LINES


def test_functions_are_short() -> None:
    lengths = _lengths()
    assert statistics.median(lengths) <= 10
    assert statistics.quantiles(lengths, n=10)[-1] <= 35


def test_no_module_has_a_vague_name() -> None:
    names = {part for file in files(*PACKAGES) for part in module(file).split(".")}
    assert not {name for name in names if name in VAGUE_NAMES or set(name.split("_")) & VAGUE_NAMES}


@pytest.mark.parametrize("file", files(*PACKAGES), ids=module)
def test_classes_inherit_only_from_allowed_bases(file: Path) -> None:
    classes = [node for node in ast.walk(parse(file)) if isinstance(node, ast.ClassDef)]
    bases = {ast.unparse(base).split("[")[0] for node in classes for base in node.bases}
    assert {base for base in bases if not base.endswith(("Error", "Exception"))} <= ALLOWED_BASES
