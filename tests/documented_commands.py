"""The shell commands of the documentation: those that tests run, and what the others need.

A test takes its commands from a page by `documented(PAGE, PREFIX)`. A command that no test runs has a comment
`# needs …` in the page: on its own line, or on the first line of its block for the whole block.
"""

import ast
import functools
import re
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT
from tests.source import files, parse

NEED = re.compile(r"(?:^|\s)# (?:.*\b)?needs (.+)$")


@dataclass(frozen=True)
class Command:
    """A command without comments, parentheses and leading variables, and what it needs that tests lack."""

    text: str
    need: str | None


def commands(markdown: str) -> list[Command]:
    """The commands of the fenced sh blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    return [command for block in blocks for command in _block_commands(block.replace("\\\n", " "))]


def _block_commands(block: str) -> list[Command]:
    lines = block.splitlines()
    of_block = _need(lines[0]) if lines[0].startswith("#") else None
    return [Command(text, _need(line) or of_block) for line in lines for text in _line_commands(line)]


def _need(line: str) -> str | None:
    match = NEED.search(line)
    return match[1] if match else None


def _line_commands(line: str) -> list[str]:
    code = re.sub(r"(^|\s)#.*$", "", line).strip()
    inner = re.sub(r"^\(?(umask \d+ && )?(.*?)(>\S+)?\)?$", r"\2", code).strip()
    parts = [part.strip() for part in re.split(r"&&|\|", inner)]
    return [" ".join(re.sub(r"^([A-Z_]+=\S+ )+", "", part).split()) for part in parts if part]


def document_commands(document: str) -> list[Command]:
    return commands((ROOT / document).read_text())


def documented(document: str, prefix: str) -> list[str]:
    """The commands of a document that start with `prefix`, for the test that runs them.

    Without those that lack something (`…`), or need what tests lack.
    """
    texts = [command.text for command in document_commands(document) if command.need is None]
    found = [text for text in texts if text.startswith(prefix) and "…" not in text]
    assert found, f"{document} has no command {prefix!r}"
    return found


@functools.cache
def run_by_tests() -> set[str]:
    """The commands that tests take from the documentation by `documented` with literal arguments."""
    trees = [parse(file) for file in files("tests") if file != Path(__file__)]
    calls = [node for tree in trees for node in ast.walk(tree) if _takes_commands(node)]
    return {text for call in calls for text in documented(*map(ast.literal_eval, call.args))}


def _takes_commands(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "documented"
