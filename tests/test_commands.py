"""The commands: they parse arguments before heavy imports, and the documentation shows valid ones.

Those of RUN_DOCUMENTS are run by tests, or say in the page what they need.
"""

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable

import click
import pytest
import yaml
from ray.scripts.scripts import cli as ray_cli
from ray.serve.scripts import cli as serve_cli

from serve.address import PORT
from serve.app import ARGUMENTS
from serve.http.auth import API_KEYS_FILE_ENV
from tests.conftest import ROOT
from tests.documented_commands import commands, document_commands, run_by_tests
from tests.test_architecture import COMMANDS

DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
)
# All but the commands of development.
RUN_DOCUMENTS = tuple(name for name in DOCUMENTS if name not in ("CONTRIBUTING.md", "docs/develop.md"))
OF_CI = {"make setup", "make test"}
# Programs that are not part of this repository's environment.
EXTERNAL = {"aws", "gcloud", "kubectl", "curl", "openssl", "cd", "export", ".", "tensorboard", "git"}
HEAVY = ("torch", "ray", "open_clip", "lance", "pyarrow")
# Runs a command with `--help`, then with a wrong option; prints exit codes and imported heavy modules.
PARSE = """
import runpy, sys
for option in ("--help", "--no-such-option"):
    sys.argv = [sys.argv[0], option]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        print("exit", end.code)
print("imported", *(name for name in {heavy} if name in sys.modules))
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_command_parses_arguments_before_heavy_imports(name: str) -> None:
    script = f"import sys; sys.argv = ['ray_jobs/{name}.py']\n" + PARSE.format(heavy=HEAVY)
    completed = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert [line for line in completed.stdout.splitlines() if line.startswith(("exit ", "imported"))] == [
        *("exit 0", "exit 2", "imported")
    ]
    assert completed.stdout.startswith("usage: ")


def check_python(words: list[str], complete: bool) -> None:
    """A job of this project with valid options, and all required ones if the command is complete."""
    if words[0] == "-m":
        importlib.import_module(words[1])
        return
    assert (ROOT / words[0]).is_file()
    if not words[0].startswith("ray_jobs/"):
        return
    parser = importlib.import_module(words[0].removesuffix(".py").replace("/", ".")).parser()
    if complete:
        parser.parse_args(words[1:])
        return
    options = {
        option
        for action in parser._actions
        if action.dest != argparse.SUPPRESS
        for option in action.option_strings
    }
    assert {word for word in words[1:] if word.startswith("--")} <= options


def check_click(cli: click.Group) -> Callable[[list[str], bool], None]:
    def check(words: list[str], complete: bool) -> None:
        before, _, entry = " ".join(words).partition(" -- ")
        names, group = before.split(), cli
        while isinstance(group, click.Group):
            group = group.commands[names.pop(0)]
        options = {option for param in group.params for option in param.opts}
        assert {word.split("=")[0] for word in names if word.startswith("--")} <= options | {"--help"}
        if entry:
            check_command(entry, complete)

    return check


def check_make(words: list[str], complete: bool) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {word for word in words if "=" not in word} <= set(targets)


def check_bash(words: list[str], complete: bool) -> None:
    assert (ROOT / words[0]).is_file()


def check_pip(words: list[str], complete: bool) -> None:
    assert all((ROOT / word).exists() for word in words if word.startswith("./"))


def check_stbir(words: list[str], complete: bool) -> None:
    assert words[0] == "search"


def check_docker(words: list[str], complete: bool) -> None:
    """A build, or a run whose command is one of the image's, with ports and arguments of the endpoint."""
    if words[0] == "build":
        assert (ROOT / words[-1] / "Dockerfile").is_file()
        return
    if words[0] == "compose":
        check_compose(words[1:], complete)
        return
    entry = words[words.index("serve") :]
    check_command(shlex.join(entry), complete)
    assert entry[1:3] == ["run", "serve.app:build"]
    assert {word.partition("=")[0] for word in entry[3:]} <= set(ARGUMENTS)
    assert words[words.index("-p") + 1].split(":")[1] == str(PORT)
    assert f"{API_KEYS_FILE_ENV}=" in shlex.join(words)


def check_compose(words: list[str], complete: bool) -> None:
    """Services of compose.yaml, or a run of one with a command of this project."""
    verb, *rest = (word for word in words if word not in ("-d", "--rm"))
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].keys()
    if verb == "run":
        service, *command = rest
        check_command(shlex.join(command), complete)
        rest = [service]
    assert verb in ("up", "run")
    assert set(rest) <= services


CHECKS: dict[str, Callable[[list[str], bool], None]] = {
    "python": check_python,
    "ray": check_click(ray_cli),
    "serve": check_click(serve_cli),
    "make": check_make,
    "bash": check_bash,
    "pip": check_pip,
    "docker": check_docker,
    "stbir": check_stbir,
}


def check_command(command: str, complete: bool) -> None:
    program, *words = (word for word in shlex.split(command.replace("…", "")) if word)
    if program not in EXTERNAL:
        CHECKS[program](words, complete)


@pytest.mark.parametrize(
    ("document", "command"),
    [(name, command.text) for name in DOCUMENTS for command in document_commands(name)],
)
def test_documented_command_is_valid(document: str, command: str) -> None:
    check_command(command, complete="…" not in command)


@pytest.mark.parametrize("document", RUN_DOCUMENTS)
def test_documented_commands_are_run_by_tests_or_say_what_they_need(document: str) -> None:
    is_run = run_by_tests() | OF_CI
    assert [
        command.text
        for command in document_commands(document)
        if command.text not in is_run
        and command.need is None
        and "…" not in command.text  # a fragment
        and command.text.split()[0] not in {"export", "."}  # of the shell
    ] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documented_files_exist(document: str) -> None:
    pattern = r"`((?:deploy|runs|ray_jobs|serve|stbir|benchmarks)/[a-z\d_./-]+\.\w+)`"
    paths = re.findall(pattern, (ROOT / document).read_text())
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_invalid_commands_are_detected() -> None:
    [command] = commands("```sh\nray start --head --colour=red   # comment\n```\n")
    with pytest.raises(AssertionError):
        check_command(command.text, complete=True)
    with pytest.raises((AssertionError, SystemExit)):
        check_command("python ray_jobs/train.py --recipe smoke --speed 3", complete=False)
    with pytest.raises((AssertionError, SystemExit)):
        check_command("python ray_jobs/train.py … --wait 3", complete=False)


def test_commands_are_read_with_their_needs() -> None:
    markdown = """
```sh
(umask 077 && A=1 ray get-auth-token >/dev/null) # x
ray up a.yaml && ray down \\
  a.yaml   # of 5 machines; needs an account
```
```sh
# needs a cluster
kubectl apply -f a.yaml   # or b.yaml
```
"""
    assert [(command.text, command.need) for command in commands(markdown)] == [
        ("ray get-auth-token", None),
        ("ray up a.yaml", "an account"),
        ("ray down a.yaml", "an account"),
        ("kubectl apply -f a.yaml", "a cluster"),
    ]
