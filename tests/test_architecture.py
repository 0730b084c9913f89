"""The laws of docs/architecture.md, read off the syntax trees: who imports whom, and when things happen."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.source import ROOMS, files, imported, module, parse

# Which rooms each room may import, besides itself. docs/architecture.md draws the same arrows.
LIBRARY = {
    "stbir": set(),
    "stbir/errors": set(),
    "stbir/config": {"stbir/errors"},
    "stbir/images": {"stbir/errors"},
    "stbir/storage": {"stbir/errors"},
    "stbir/augmentation": {"stbir/errors", "stbir/images"},
    "stbir/model": {"stbir/errors", "stbir/config", "stbir/storage"},
    "stbir/gallery": {"stbir/errors", "stbir/config", "stbir/images", "stbir/storage"},
    "stbir/data": {
        *("stbir/errors", "stbir/config", "stbir/images", "stbir/storage", "stbir/augmentation"),
    },
    "stbir/captioning": {"stbir/errors", "stbir/images", "stbir/storage", "stbir/augmentation"},
    "stbir/catalogue": {"stbir/errors", "stbir/storage", "stbir/data"},
    "stbir/embedding": {
        *("stbir/errors", "stbir/config", "stbir/images"),
        *("stbir/model", "stbir/gallery", "stbir/data"),
    },
    "stbir/training": {"stbir/errors", "stbir/config", "stbir/model", "stbir/data"},
    "stbir/evaluation": {
        *("stbir/errors", "stbir/config", "stbir/storage", "stbir/augmentation"),
        *("stbir/model", "stbir/gallery", "stbir/data", "stbir/embedding"),
    },
}
JOBS = {
    "ray_jobs": set(),
    "ray_jobs/cli": set(),
    "ray_jobs/cluster": {"ray_jobs/cli"},
    "ray_jobs/recipes": set(),
    "ray_jobs/training": {"ray_jobs/cli", "ray_jobs/cluster"},
    "ray_jobs/embedding": {"ray_jobs/cli", "ray_jobs/cluster"},
    "ray_jobs/captioning": {"ray_jobs/cli"},
    "ray_jobs/jobs": {
        *("ray_jobs/cli", "ray_jobs/cluster", "ray_jobs/recipes"),
        *("ray_jobs/training", "ray_jobs/embedding", "ray_jobs/captioning"),
    },
}
COMMANDS = ("ablate", "caption", "embed_gallery", "evaluate", "gallery", "preflight", "prepare_shards")
COMMANDS += ("search_batch", "train")
JOBS |= {
    f"ray_jobs/{command}": {"ray_jobs/cli", "ray_jobs/jobs", "ray_jobs/recipes", "ray_jobs/captioning"}
    for command in COMMANDS
}
SHARED = {"serve/settings", "serve/messages", "serve/deadline", "serve/problem", "serve/metrics"}
SERVING = {
    "serve": set(),
    "serve/settings": set(),
    "serve/environment": set(),
    "serve/messages": set(),
    "serve/deadline": set(),
    "serve/problem": set(),
    "serve/metrics": set(),
    "serve/http": {*SHARED, "serve/environment"},
    "serve/rollout": SHARED,
    "serve/deployments": {*SHARED, "serve/http", "serve/rollout"},
    "serve/app": {*SHARED, "serve/environment", "serve/deployments", "serve/rollout"},
}
ARROWS: dict[str, set[str]] = LIBRARY | JOBS | SERVING
NOT_IN_THE_LIBRARY = {
    *("ray", "lance_ray", "fastapi", "starlette", "uvicorn", "httpx", "requests"),
    *("argparse", "click", "ray_jobs", "serve", "stbir_client", "tests"),
}


def _room(name: str) -> str:
    """`stbir/data` of `stbir.data.shards`; `stbir` of itself."""
    return "/".join(name.split(".")[:2])


def _own(file: Path) -> set[str]:
    """The modules of the project that a file imports."""
    known = {module(each) for each in files(*ROOMS)}
    return set(imported(parse(file))) & known


@pytest.mark.parametrize("file", files("stbir", "ray_jobs", "serve"), ids=module)
def test_arrows_point_downward(file: Path) -> None:
    room = _room(module(file))
    found = {_room(name) for name in _own(file) if "." in name} - {room}
    library = {name for name in found if name.startswith("stbir/")}
    allowed = ARROWS[room] if room.startswith("stbir") else ARROWS[room] | library
    assert found <= allowed


def test_every_room_has_its_arrows() -> None:
    assert {_room(module(file)) for file in files("stbir", "ray_jobs", "serve")} == set(ARROWS)


@pytest.mark.parametrize("rooms", [LIBRARY, JOBS, SERVING], ids=["stbir", "ray_jobs", "serve"])
def test_no_circle_among_rooms(rooms: dict[str, set[str]]) -> None:
    assert len(list(graphlib.TopologicalSorter(rooms).static_order())) == len(rooms)


def test_no_circle_among_modules() -> None:
    modules = {module(file): file for file in files(*ROOMS)}
    graph = {name: set(imported(parse(file))) & modules.keys() - {name} for name, file in modules.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(modules)


@pytest.mark.parametrize("file", files("stbir"), ids=module)
def test_the_library_is_a_library(file: Path) -> None:
    tree = parse(file)
    assert not {name.split(".")[0] for name in imported(tree)} & NOT_IN_THE_LIBRARY
    assert not list(_environment_reads(tree))


def test_jobs_and_serving_stand_apart() -> None:
    assert not any(
        name.split(".")[0] == "serve" for file in files("ray_jobs") for name in imported(parse(file))
    )
    assert not any(
        name.split(".")[0] == "ray_jobs" for file in files("serve") for name in imported(parse(file))
    )


def _environment_reads(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"):
            yield node
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (alias for alias in node.names if alias.name in ("environ", "environb", "getenv"))


@pytest.mark.parametrize("file", files(*ROOMS), ids=module)
def test_nothing_happens_at_import(file: Path) -> None:
    assert [ast.unparse(node)[:80] for node in parse(file).body if _does_something(node)] == []


# Calls that make a value and touch nothing outside; so do constructors, which begin with a capital.
MAKERS = {
    *("schema", "field", "compile", "getLogger", "get_args", "frozenset", "dict", "tuple"),
    *("items", "join", "replace", "with_name"),
}
ARROW_TYPES = {
    "list_",
    "string",
    "binary",
    "float32",
    "float64",
    "int32",
    "int64",
    "bool_",
    "struct",
    "dictionary",
}


def _does_something(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return False
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)  # a docstring
    if isinstance(node, ast.If):
        return ast.unparse(node.test) not in ("TYPE_CHECKING", "__name__ == '__main__'")
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return any(not _only_makes(call) for call in ast.walk(node) if isinstance(call, ast.Call))
    return True


def _only_makes(call: ast.Call) -> bool:
    name = ast.unparse(call.func).split(".")[-1].lstrip("_")
    return name[:1].isupper() or name in MAKERS | ARROW_TYPES


@pytest.mark.parametrize(
    ("code", "does"),
    [
        ("'''doc'''\nimport os\nX = 3\nTYPE = re.compile('a')\ndef f(): print()", False),
        ("if __name__ == '__main__':\n    main()", False),
        ("model = load('weights')", True),
        ("ray.init()", True),
        ("for name in names:\n    register(name)", True),
        ("with open('f') as f:\n    pass", True),
    ],
)
def test_what_happening_means(code: str, does: bool) -> None:
    assert any(_does_something(node) for node in ast.parse(code).body) is does


def test_an_environment_read_is_seen() -> None:
    read = "import os\nfrom os import environ\nos.getenv('A')\nos.environ['B']"
    assert len(list(_environment_reads(ast.parse(read)))) == 3


def test_a_gallery_is_kept_without_torch() -> None:
    """`gallery.py` lists and moves versions: it need not wait for the model libraries (seconds)."""
    code = "import sys, ray_jobs.gallery; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
