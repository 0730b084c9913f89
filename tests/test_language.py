"""Names use the field's terms: no identifier or module name contains a retired word (docs/glossary.md)."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.source import files, parse

FOLDERS = ("stbir", "ray_jobs", "serve", "stbir_client", "benchmarks", "runs", "deploy", "examples", "tests")
RETIRED = {
    *("alone", "asked", "asking", "changeover", "dice", "everyones", "generations", "gone", "hears", "hub"),
    *("hubs", "kept", "knowing", "lasting", "mates", "moods", "nobody", "patience", "patiently", "picture"),
    *("pictures", "poorer", "somebody", "strangers", "told", "tower", "towers", "weigh", "wish"),
}


def words(name: str) -> set[str]:
    """The lower-case words of a name in snake case or camel case."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def defined(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each function, class, parameter, assigned name and assigned attribute."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr
            case ast.alias(asname=str()):
                yield node.lineno, node.asname
            case ast.ExceptHandler(name=str()):
                yield node.lineno, node.name


def retired_names(tree: ast.AST) -> list[tuple[int, str, str]]:
    """Line, identifier and word of each identifier that contains a retired word."""
    return [(line, name, word) for line, name in defined(tree) for word in sorted(words(name) & RETIRED)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_identifier_contains_a_retired_word(folder: str) -> None:
    problems = [
        f"{file.relative_to(ROOT)}:{line}: {name}: {word}"
        for file in files(folder)
        for line, name, word in retired_names(parse(file))
    ]
    assert not problems, "retired words in identifiers:\n" + "\n".join(problems)


def _module_names() -> Iterator[tuple[Path, str]]:
    for path in (file.relative_to(ROOT) for file in files(*FOLDERS)):
        yield from ((path, part) for part in path.with_suffix("").parts)


def test_no_module_name_contains_a_retired_word() -> None:
    problems = {f"{path}: {part}" for path, part in _module_names() if words(part) & RETIRED}
    assert not problems, "retired words in module names:\n" + "\n".join(sorted(problems))


def test_identifiers_of_all_kinds_are_found() -> None:
    code = """
class PhotoTower: pass
async def asked(towers=1, *, wish, **moods):
    self.kept, [gone] = hub = 1, [2]
    with open(f) as picture: pass
    import os as strangers
    for dice in (everyones := []): pass
    except_ = lambda told: [nobody for nobody in told.pictures]
    try: pass
    except E as weigh: pass
"""
    expected = (
        "tower asked towers wish moods kept gone hub picture strangers dice everyones told nobody weigh"
    )
    assert sorted(word for *_, word in retired_names(ast.parse(code))) == sorted(expected.split())
    assert retired_names(ast.parse("def keep_track(token, mood): return asked.told")) == []
    assert words("_HTTPHits2_to_KEEP") == {"http", "hits", "to", "keep"}
