"""The rules of docs/architecture.md: which package imports which, and no side effects at import."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.source import PACKAGES, files, imported, module, parse

# Package → packages that it may import besides itself, as drawn in docs/architecture.md.
LIBRARY = {
    "stbir": {"stbir/errors", "stbir/gallery", "stbir/api"},
    "stbir/errors": set(),
    "stbir/config": {"stbir/errors"},
    "stbir/color": set(),
    "stbir/sketch_normalization": set(),
    "stbir/images": {"stbir/errors", "stbir/color", "stbir/sketch_normalization"},
    "stbir/storage": {"stbir/errors"},
    "stbir/augmentation": {"stbir/errors", "stbir/images"},
    "stbir/model": {"stbir/errors", "stbir/config", "stbir/storage"},
    "stbir/gallery": {"stbir/errors", "stbir/config", "stbir/images", "stbir/storage"},
    "stbir/data": {*("stbir/errors", "stbir/config", "stbir/images", "stbir/storage", "stbir/augmentation")},
    "stbir/captioning": {"stbir/errors", "stbir/images", "stbir/storage", "stbir/augmentation"},
    "stbir/catalogue": {"stbir/errors", "stbir/images", "stbir/storage", "stbir/data"},
    "stbir/embedding": {
        *("stbir/errors", "stbir/config", "stbir/images", "stbir/storage"),
        *("stbir/model", "stbir/gallery", "stbir/data", "stbir/catalogue"),
    },
    "stbir/training": {"stbir/errors", "stbir/config", "stbir/model", "stbir/data"},
    "stbir/evaluation": {
        *("stbir/errors", "stbir/config", "stbir/storage", "stbir/augmentation"),
        *("stbir/model", "stbir/gallery", "stbir/data", "stbir/embedding"),
    },
    "stbir/api": {
        *("stbir/errors", "stbir/config", "stbir/images", "stbir/storage", "stbir/model", "stbir/gallery"),
        *("stbir/data", "stbir/catalogue", "stbir/embedding", "stbir/evaluation"),
    },
}
JOBS = {
    "ray_jobs": set(),
    "ray_jobs/interrupts": set(),
    "ray_jobs/cli": {"ray_jobs/interrupts"},
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
COMMANDS += ("calibrate", "export_onnx", "init_checkpoint", "search_batch", "train")
JOBS |= {
    f"ray_jobs/{command}": {
        *("ray_jobs/interrupts", "ray_jobs/cli", "ray_jobs/jobs", "ray_jobs/recipes", "ray_jobs/captioning")
    }
    for command in COMMANDS
}
SHARED = {"serve/settings", "serve/messages", "serve/deadline", "serve/problem", "serve/metrics"}
SHARED |= {"serve/galleries"}
SERVING = {
    "serve": set(),
    "serve/galleries": set(),
    "serve/settings": {"serve/galleries"},
    "serve/environment": set(),
    "serve/messages": set(),
    "serve/deadline": set(),
    "serve/problem": set(),
    "serve/metrics": set(),
    "serve/http": {*SHARED, "serve/environment"},
    "serve/rollout": SHARED,
    "serve/deployments": {*SHARED, "serve/http", "serve/rollout"},
    "serve/address": set(),
    "serve/app": {"serve/address", "serve/environment", "serve/wiring"},
    "serve/search_folder": {"serve/address", "serve/environment", "serve/wiring"},
    "serve/wiring": {*SHARED, "serve/environment", "serve/deployments", "serve/rollout"},
}
ALLOWED_IMPORTS: dict[str, set[str]] = LIBRARY | JOBS | SERVING
FORBIDDEN_IN_LIBRARY = {
    *("ray", "lance_ray", "fastapi", "starlette", "uvicorn", "httpx", "requests"),
    *("argparse", "click", "ray_jobs", "serve", "stbir_client", "tests"),
}


def _package(name: str) -> str:
    """The package of a module: `stbir.data.shards` → `stbir/data`, `stbir` → `stbir`."""
    return "/".join(name.split(".")[:2])


def _project_imports(file: Path) -> set[str]:
    """The modules of this project that a file imports."""
    modules = {module(path) for path in files(*PACKAGES)}
    return set(imported(parse(file))) & modules


@pytest.mark.parametrize("file", files("stbir", "ray_jobs", "serve"), ids=module)
def test_imports_between_packages_are_allowed(file: Path) -> None:
    package = _package(module(file))
    packages = {_package(name) for name in _project_imports(file) if "." in name} - {package}
    library = {name for name in packages if name.startswith("stbir/")}
    allowed = ALLOWED_IMPORTS[package] | (set() if package.startswith("stbir") else library)
    assert packages <= allowed


def test_allowed_imports_cover_all_packages() -> None:
    assert {_package(module(file)) for file in files("stbir", "ray_jobs", "serve")} == set(ALLOWED_IMPORTS)


@pytest.mark.parametrize("graph", [LIBRARY, JOBS, SERVING], ids=["stbir", "ray_jobs", "serve"])
def test_packages_have_no_import_cycle(graph: dict[str, set[str]]) -> None:
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(graph)


def test_modules_have_no_import_cycle() -> None:
    modules = {module(file): file for file in files(*PACKAGES)}
    graph = {name: set(imported(parse(file))) & modules.keys() - {name} for name, file in modules.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(modules)


@pytest.mark.parametrize("file", files("stbir"), ids=module)
def test_library_imports_no_framework_and_reads_no_environment(file: Path) -> None:
    tree = parse(file)
    assert not {name.split(".")[0] for name in imported(tree)} & FORBIDDEN_IN_LIBRARY
    assert not list(_environment_reads(tree))


def test_jobs_and_serving_do_not_import_each_other() -> None:
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


@pytest.mark.parametrize("file", files(*PACKAGES), ids=module)
def test_modules_have_no_side_effects_at_import(file: Path) -> None:
    assert [ast.unparse(node)[:80] for node in parse(file).body if _has_side_effect(node)] == []


# Functions without side effects; constructors, which start with a capital letter, are allowed too.
PURE_FUNCTIONS = {
    *("schema", "field", "dtype", "compile", "getLogger", "get_args", "frozenset", "dict", "tuple"),
    *("items", "join", "replace", "with_name", "problem_app"),
}
ARROW_TYPES = {
    *("list_", "string", "binary", "large_string", "large_binary", "float32", "float64"),
    *("int32", "int64", "bool_", "timestamp", "struct", "dictionary"),
}


def _has_side_effect(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return False
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)  # a docstring
    if isinstance(node, ast.If):
        return ast.unparse(node.test) not in ("TYPE_CHECKING", "__name__ == '__main__'")
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return any(not _is_pure(call) for call in _executed(node) if isinstance(call, ast.Call))
    return True


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """A node and its descendants, except the bodies of lambdas."""
    yield node
    if not isinstance(node, ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _executed(child)


def _is_pure(call: ast.Call) -> bool:
    name = ast.unparse(call.func).split(".")[-1].lstrip("_")
    return name[:1].isupper() or name in PURE_FUNCTIONS | ARROW_TYPES


@pytest.mark.parametrize(
    ("code", "has_side_effect"),
    [
        ("'''doc'''\nimport os\nX = 3\nTYPE = re.compile('a')\ndef f(): print()", False),
        ("if __name__ == '__main__':\n    main()", False),
        ("ROUND = {'x': lambda x: round(x)}", False),
        ("model = load('weights')", True),
        ("ray.init()", True),
        ("for name in names:\n    register(name)", True),
        ("with open('f') as f:\n    pass", True),
    ],
)
def test_side_effects_are_detected(code: str, has_side_effect: bool) -> None:
    assert any(_has_side_effect(node) for node in ast.parse(code).body) is has_side_effect


def test_environment_reads_are_detected() -> None:
    read = "import os\nfrom os import environ\nos.getenv('A')\nos.environ['B']"
    assert len(list(_environment_reads(ast.parse(read)))) == 3


# Modules → libraries that they do not load. No row forbids what an earlier one loads.
LIGHT_IMPORTS = {
    "serve.http.auth, serve.environment": {"ray"},  # which reads its environment when it is imported
    "serve.deployments.ingress": {"torch", "lance"},  # so that its replicas start fast and take little memory
    # Decode tasks and Ray Train's controller import them (Ray itself loads torch in the controller).
    "ray_jobs.training.job, ray_jobs.training.ingest, ray_jobs.training.data_config": {"torch", "timm"},
    "ray_jobs.jobs.gallery": {"torch"},  # its actions need no model
}


@pytest.mark.slow(reason="a process that imports Ray and Lance")
def test_light_modules_do_not_load_heavy_libraries() -> None:
    code = "import sys\n" + "".join(
        f"import {modules}\nif heavy := {libraries} & {{*sys.modules}}: print({modules!r}, heavy)\n"
        for modules, libraries in LIGHT_IMPORTS.items()
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == ""
