"""The tree in docs/architecture.md is the real tree, and each thing in it says what it is."""

import re
import subprocess
from pathlib import PurePosixPath

import pytest

from tests.conftest import ROOT

# Folders whose own folders and Python files the tree names one by one.
OPEN = (
    "stbir",
    "stbir/augmentation",
    "stbir/data",
    "stbir/embedding",
    "stbir/evaluation",
    "stbir/gallery",
    "stbir/model",
    "stbir/storage",
    "stbir/training",
    "ray_jobs",
    "ray_jobs/cluster",
    "ray_jobs/embedding",
    "ray_jobs/recipes",
    "ray_jobs/training",
    "serve",
    "serve/deployments",
    "serve/http",
    "serve/rollout",
)
LINE = re.compile(r"^(?P<stem>(?:│   |    )*)(?:├──|└──) (?P<name>\S+)(?: +(?P<caption>\S.*))?$")


def captions(markdown: str) -> dict[str, str]:
    """Path → caption of the first fenced block that draws a tree. Folders have no closing slash."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in _tree_lines(markdown):
        match = LINE.match(line.rstrip())
        assert match, f"not a line of a tree: {line!r}"
        depth = len(match["stem"]) // 4
        above[depth:] = [match["name"].rstrip("/")]
        found["/".join(above)] = match["caption"] or ""
    return found


def _tree_lines(markdown: str) -> list[str]:
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    tree = next((block for block in blocks if "├── " in block), None)
    assert tree is not None, "no fenced block draws a tree"
    return [line for line in tree.splitlines() if "── " in line]


def expected(files: list[str]) -> set[str]:
    """Of a repository's files, what its tree must name: no dot files, no `__init__.py`."""
    named = set()
    for path in map(PurePosixPath, files):
        if path.parts[0].startswith("."):
            continue
        named.add(path.parts[0])
        inside = [(str(p.parent), p) for p in (path, *path.parents) if str(p.parent) in OPEN]
        named |= {str(p) for _, p in inside if p != path or (p.suffix == ".py" and p.name != "__init__.py")}
    return named


def _files() -> list[str]:
    """What git tracks or would track."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in names if (ROOT / name).exists()]


ARCHITECTURE = ROOT / "docs" / "architecture.md"


def test_every_room_and_file_is_in_the_tree() -> None:
    assert expected(_files()) - captions(ARCHITECTURE.read_text()).keys() == set()


def test_nothing_in_the_tree_is_made_up() -> None:
    tree = captions(ARCHITECTURE.read_text())
    assert [path for path in tree if not (ROOT / path).exists()] == []


def test_everything_in_the_tree_says_what_it_is() -> None:
    assert [path for path, caption in captions(ARCHITECTURE.read_text()).items() if not caption] == []


MADE_UP = """Text.
```sh
make demo
```
```
house/
├── stbir/             the library
│   ├── data/          what a sample is
│   │   └── shards.py  the reader
│   └── page.py
└── Makefile           every habit
```
"""


def test_a_made_up_tree_is_read_right() -> None:
    assert captions(MADE_UP) == {
        "stbir": "the library",
        "stbir/data": "what a sample is",
        "stbir/data/shards.py": "the reader",
        "stbir/page.py": "",
        "Makefile": "every habit",
    }


def test_what_a_made_up_repository_must_name() -> None:
    files = [
        *(".gitignore", ".ci/run", "Makefile", "docs/a/b.md", "stbir/__init__.py", "stbir/py.typed"),
        *("stbir/data/shards.py", "stbir/data/sources/qmul.py", "serve/web/index.html", "serve/app.py"),
    ]
    assert expected(files) == {
        *("Makefile", "docs", "stbir", "stbir/data", "stbir/data/shards.py", "stbir/data/sources"),
        *("serve", "serve/web", "serve/app.py"),
    }


def test_a_broken_line_is_refused() -> None:
    with pytest.raises(AssertionError, match="not a line of a tree"):
        captions("```\n├── a  b\n  ├── crooked  c\n```\n")
