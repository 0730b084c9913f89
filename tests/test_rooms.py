"""Rooms stay small and are named for what lies in them."""

import ast
import statistics
from pathlib import Path

import pytest

from tests.source import ROOMS, files, functions, module, parse

DRAWERS = {"util", "utils", "common", "helper", "helpers", "misc", "manager", "managers", "tools", "stuff"}
MOST_LINES = 250
# What torch, Ray or the type system asks to inherit from; exceptions beside them.
BASES = {"nn.Module", "Protocol", "NamedTuple", "TypedDict", "BaseModel", "torch.autograd.Function"} | {
    "ExecutionCallback",
    "DataConfig",
}


def _lengths() -> list[int]:
    """Lines of every function, from `def` to its end."""
    found = [node for file in files(*ROOMS) for node in functions(parse(file))]
    return [(node.end_lineno or node.lineno) - node.lineno + 1 for node in found]


@pytest.mark.parametrize("file", files(*ROOMS), ids=module)
def test_files_are_small(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= MOST_LINES


def test_functions_are_short() -> None:
    lengths = _lengths()
    assert statistics.median(lengths) <= 10
    assert statistics.quantiles(lengths, n=10)[-1] <= 35


def test_no_drawers() -> None:
    names = {part for file in files(*ROOMS) for part in module(file).split(".")}
    assert not {name for name in names if name in DRAWERS or set(name.split("_")) & DRAWERS}


@pytest.mark.parametrize("file", files(*ROOMS), ids=module)
def test_composition_not_inheritance(file: Path) -> None:
    classes = [node for node in ast.walk(parse(file)) if isinstance(node, ast.ClassDef)]
    bases = {ast.unparse(base).split("[")[0] for node in classes for base in node.bases}
    assert {base for base in bases if not base.endswith(("Error", "Exception"))} <= BASES
