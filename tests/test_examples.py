"""The examples, run as a user runs them. `tests/serve/test_client.py` runs the query over HTTP."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image

import stbir
from tests.conftest import ROOT
from tests.data.image_files import drawing, png, write_files
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint

TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_files(tmp_path / "photos", {f"{n}.png": png(20 * n) for n in range(6)})


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Name and weights file of a tiny CLIP in open_clip's registry."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "stbir-example-clip.json").write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(folder)
    torch.save(open_clip.create_model("stbir-example-clip").state_dict(), folder / "clip.pt")
    return "stbir-example-clip", str(folder / "clip.pt")


@pytest.mark.slow(reason="a process that imports the model libraries")
def test_five_lines(photos: Path, tmp_path: Path) -> None:
    checkpoint = save_smoke_checkpoint(str(tmp_path / "checkpoint"))
    drawing().save(tmp_path / "chair.png")
    command = [sys.executable, str(ROOT / "examples" / "five_lines.py"), checkpoint, str(photos)]
    output = subprocess.run(
        [*command, "gallery", "chair.png", "red seat"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    assert output.startswith("6 hits\n  1  ")
    assert (tmp_path / "hits.png").read_bytes().startswith(b"\x89PNG")


def test_notebook(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code cells in order, in one namespace; those of the paths are replaced. No outputs are stored."""
    notebook = json.loads((ROOT / "examples" / "search.ipynb").read_text())
    paths, *cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in (paths, *cells))
    monkeypatch.chdir(tmp_path)
    checkpoint = save_smoke_checkpoint(str(tmp_path / "out" / "demo" / "checkpoint"))
    namespace: dict[str, Any] = {}
    exec("".join(paths["source"]), namespace)
    assert Path(checkpoint).resolve() == Path(namespace["CHECKPOINT"]).resolve()
    assert photos == Path(namespace["PHOTOS"]).resolve()
    results = [_run_cell("".join(cell["source"]), namespace) for cell in cells]
    assert isinstance(results[1], Image.Image)
    assert len(results[2]) == 5


def _run_cell(source: str, namespace: dict[str, Any]) -> Any:
    """Run a cell; the value of its last line is what a notebook shows."""
    *body, last = ast.parse(source).body
    exec(compile(ast.Module(body, []), "cell", "exec"), namespace)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)
    exec(compile(ast.Module([last], []), "cell", "exec"), namespace)
    return None


def test_zero_shot(
    photos: Path, clip: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    importlib.import_module("examples.zero_shot").main(*clip, str(photos), str(tmp_path / "g"), "red seat")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(Path(line.split("  ")[1]).is_file() for line in lines)


def test_steering(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = save_smoke_checkpoint(str(tmp_path / "checkpoint"))
    (photos / "copy.png").write_bytes((photos / "3.png").read_bytes())
    example = importlib.import_module("examples.steering")
    example.main(checkpoint, str(photos), str(tmp_path / "g"), "red seat", "blue")
    best, *hits = capsys.readouterr().out.splitlines()
    photo_ids = {line.split("  ")[1] for line in hits}
    assert best.removeprefix("like ").rstrip(":") not in photo_ids
    assert len(hits) < sum(int(line.split("  ")[2].split()[0]) for line in hits) == 6


@pytest.mark.slow(reason="a training run")
def test_fine_tune(
    ray_cluster: str,
    shards: str,
    clip: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train, summaries = stbir.train, list[dict[str, Any]]()

    def train_and_keep(*arguments: str, **options: str) -> None:
        summaries.append(train(*arguments, **options))

    monkeypatch.setattr(stbir, "train", train_and_keep)
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)
    importlib.import_module("examples.fine_tune").main(*clip, shards, str(tmp_path / "out"))
    out, [summary] = f"{tmp_path}/out/checkpoint", summaries
    assert (summary["recipe"], summary["checkpoint"]) == ("finetune", out)
    assert summary["digest"] == stbir.load(out).digest
    # A Ray of the same session may write lines of its own to this process.
    lines = [line for line in capsys.readouterr().out.splitlines() if "Acc@1" in line]
    assert [line.split(":")[0] for line in lines] == ["sketch", "text", "sketch+text"]
