"""Every command that the documents tell is one: its program, its options and its files are there.

Those of README.md and docs/operations.md that can run here are run, by the tests that
`tests/documented_commands.py` names.
"""

import importlib
import re
import shlex
from collections.abc import Callable

import click
import pytest
from ray.scripts.scripts import cli as ray_cli
from ray.serve.scripts import cli as serve_cli

from tests.conftest import ROOT
from tests.documented_commands import NOT_HERE, commands, told_in, where_run

DOCUMENTS = ("README.md", "docs/operations.md", "docs/data.md", "docs/captions.md", "CONTRIBUTING.md")
# What belongs to others, and is no part of this repository's environment.
THEIRS = {"aws", "kubectl", "docker", "curl", "openssl", "cd", "export", ".", "tensorboard", "git"}


def _words(command: str) -> list[str]:
    return [word for word in shlex.split(command.replace("…", "")) if word]


def check_python(words: list[str], whole: bool) -> None:
    """A job of this project, with options that it takes; all that it needs where it is told whole."""
    if words[0] == "-m":
        importlib.import_module(words[1])
        return
    assert (ROOT / words[0]).is_file()
    if not words[0].startswith("ray_jobs/"):
        return
    parser = importlib.import_module(words[0].removesuffix(".py").replace("/", ".")).parser()
    if whole:
        parser.parse_args(words[1:])
        return
    known = {option for action in parser._actions for option in action.option_strings}
    assert {word for word in words[1:] if word.startswith("--")} <= known


def check_click(cli: click.Group) -> Callable[[list[str], bool], None]:
    def check(words: list[str], whole: bool) -> None:
        before, _, entry = " ".join(words).partition(" -- ")
        names, group = before.split(), cli
        while isinstance(group, click.Group):
            group = group.commands[names.pop(0)]
        known = {option for param in group.params for option in param.opts}
        options = {word.split("=")[0] for word in names if word.startswith("--")}
        assert options <= known | {"--help"}
        if entry:
            check_command(entry, whole)

    return check


def check_make(words: list[str], whole: bool) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {word for word in words if "=" not in word} <= set(targets)


def check_bash(words: list[str], whole: bool) -> None:
    assert (ROOT / words[0]).is_file()


def check_pip(words: list[str], whole: bool) -> None:
    assert all((ROOT / word).exists() for word in words if word.startswith("./"))


def check_stbir(words: list[str], whole: bool) -> None:
    assert words[0] == "search"


CHECKS: dict[str, Callable[[list[str], bool], None]] = {
    "python": check_python,
    "ray": check_click(ray_cli),
    "serve": check_click(serve_cli),
    "make": check_make,
    "bash": check_bash,
    "pip": check_pip,
    "stbir": check_stbir,
}


def check_command(command: str, whole: bool) -> None:
    program, *words = _words(command)
    if program not in THEIRS:
        CHECKS[program](words, whole)


def told() -> list[tuple[str, str]]:
    return [(name, each) for name in DOCUMENTS for each in told_in(name)]


@pytest.mark.parametrize(("document", "command"), told())
def test_a_command_that_is_told_exists(document: str, command: str) -> None:
    check_command(command, whole="…" not in command)


@pytest.mark.parametrize("command", [*told_in("README.md"), *told_in("docs/operations.md")])
def test_a_command_that_is_told_is_run_by_a_test_or_cannot_run_here(command: str) -> None:
    [place] = where_run(command)
    assert place.startswith(NOT_HERE) or (ROOT / place).is_file()


def test_files_that_are_told_of_are_there() -> None:
    for name in DOCUMENTS:
        named = re.findall(
            r"`((?:deploy|runs|ray_jobs|serve|stbir|benchmarks)/[\w./-]+\.\w+)`", (ROOT / name).read_text()
        )
        assert [path for path in named if not (ROOT / path).exists()] == [], name


def test_a_made_up_command_is_refused() -> None:
    block = "```sh\nray start --head --colour=red   # nice\n```\n"
    [command] = commands(block)
    with pytest.raises(AssertionError):
        check_command(command, whole=True)
    with pytest.raises((AssertionError, SystemExit)):
        check_command("python ray_jobs/train.py --recipe smoke --speed 3", whole=False)
    assert commands("```sh\n(umask 077 && A=1 ray get-auth-token >/dev/null) # x\n```\n") == [
        "ray get-auth-token"
    ]
