"""The tree in docs/architecture.md matches the repository, and each entry has a caption."""

import re
import subprocess
from pathlib import PurePosixPath

import pytest

from tests.conftest import ROOT

# Folders whose subfolders and Python files the tree lists.
LISTED_FOLDERS = (
    "stbir",
    "stbir/api",
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
    """Path → caption of the first fenced block that contains a tree. Folders have no trailing slash."""
    captions: dict[str, str] = {}
    parents: list[str] = []
    for line in _tree_lines(markdown):
        match = LINE.match(line.rstrip())
        assert match, f"not a line of a tree: {line!r}"
        depth = len(match["stem"]) // 4
        parents[depth:] = [match["name"].rstrip("/")]
        captions["/".join(parents)] = match["caption"] or ""
    return captions


def _tree_lines(markdown: str) -> list[str]:
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    tree = next((block for block in blocks if "├── " in block), None)
    assert tree is not None, "no fenced block contains a tree"
    return [line for line in tree.splitlines() if "── " in line]


def expected(files: list[str]) -> set[str]:
    """The paths that the tree of these files must list: no dot files, no `__init__.py`."""
    paths = set()
    for path in map(PurePosixPath, files):
        if path.parts[0].startswith("."):
            continue
        paths.add(path.parts[0])
        inside = [(str(p.parent), p) for p in (path, *path.parents) if str(p.parent) in LISTED_FOLDERS]
        paths |= {str(p) for _, p in inside if p != path or (p.suffix == ".py" and p.name != "__init__.py")}
    return paths


def _files() -> list[str]:
    """Files that git tracks or would track."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in names if (ROOT / name).exists()]


ARCHITECTURE = ROOT / "docs" / "architecture.md"


def test_all_folders_and_files_are_in_the_tree() -> None:
    assert expected(_files()) - captions(ARCHITECTURE.read_text()).keys() == set()


def test_all_paths_in_the_tree_exist() -> None:
    tree = captions(ARCHITECTURE.read_text())
    assert [path for path in tree if not (ROOT / path).exists()] == []


def test_all_entries_have_a_caption() -> None:
    assert [path for path, caption in captions(ARCHITECTURE.read_text()).items() if not caption] == []


EXAMPLE = """Text.
```sh
make demo
```
```
repository/
├── stbir/             the library
│   ├── data/          what a sample is
│   │   └── shards.py  the reader
│   └── page.py
└── Makefile           all targets
```
"""


def test_captions_of_an_example_tree() -> None:
    assert captions(EXAMPLE) == {
        "stbir": "the library",
        "stbir/data": "what a sample is",
        "stbir/data/shards.py": "the reader",
        "stbir/page.py": "",
        "Makefile": "all targets",
    }


def test_expected_paths_of_an_example_repository() -> None:
    files = [
        *(".gitignore", ".ci/run", "Makefile", "docs/a/b.md", "stbir/__init__.py", "stbir/py.typed"),
        *("stbir/data/shards.py", "stbir/data/sources/qmul.py", "serve/web/index.html", "serve/app.py"),
    ]
    assert expected(files) == {
        *("Makefile", "docs", "stbir", "stbir/data", "stbir/data/shards.py", "stbir/data/sources"),
        *("serve", "serve/web", "serve/app.py"),
    }


def test_malformed_line_is_refused() -> None:
    with pytest.raises(AssertionError, match="not a line of a tree"):
        captions("```\n├── a  b\n  ├── crooked  c\n```\n")
