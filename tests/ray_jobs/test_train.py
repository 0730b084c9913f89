"""What the training command refuses; that it trains is in `tests/cluster/test_line.py`."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from ray.train import Result
from ray.train.torch import TorchTrainer

from ray_jobs import train
from ray_jobs.cli import Failed
from ray_jobs.jobs.train import _identity
from ray_jobs.recipes import recipe
from ray_jobs.recipes.override import override
from ray_jobs.training import trainer
from ray_jobs.training.job import steps_done
from stbir.data.photo_index import classes_of, index_photos
from stbir.data.shards import open_shards
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.builder import build
from tests.conftest import ROOT
from tests.ray_jobs.alone import job_of, work_alone


def run(*arguments: object) -> dict[str, Any]:
    return train.main(train.parser().parse_args([str(a) for a in arguments]))


def test_a_checkpoint_of_another_run_is_not_gone_on_with(
    ray_cluster: str, shards: str, tmp_path: Path
) -> None:
    smoke, out = recipe("smoke"), str(tmp_path)
    digest = index_photos(open_shards(shards), ["train"], classes_of(open_shards(shards), ["train"])).digest
    data = [open_shards(shards).manifest.digest]
    begun = {"made_from": "", "counts": {"steps": 0}, "details": {"photos": digest, "data": data}}
    checkpoint.save(out, "step-0", build(smoke.model), smoke, **begun)
    with pytest.raises(InputError, match="another recipe; choose another --out"):
        run("--recipe", "smoke", "--shards", shards, "--out", out, "--set", "batch_size=4")
    with pytest.raises(InputError, match="of other photos"):
        run("--recipe", "smoke", "--shards", shards, "--out", out, "--split", "train,val")
    other = {**begun, "details": {"photos": digest, "data": ["sha256:other pictures"]}}
    checkpoint.save(out, "step-0", build(smoke.model), smoke, **other)
    with pytest.raises(InputError, match="of other photos"):
        run("--recipe", "smoke", "--shards", shards, "--out", out)


def test_a_run_that_diverges_names_step_and_photos_and_leaves_what_was_good(
    shards: str, tmp_path: Path
) -> None:
    diverging = override(recipe("smoke"), ["optimizer.lr=1e38"])
    stopped = work_alone(job_of(diverging, shards, str(tmp_path)))
    assert stopped is not None
    assert re.match(r"stage clip, step \d: the loss is nan; its photos are synthetic-0:", stopped)
    assert steps_done(str(tmp_path)) == 0
    weights = checkpoint.load(str(tmp_path)).state_dict().values()
    assert all(bool(weight.isfinite().all()) for weight in weights)


def test_a_run_that_stopped_for_a_reason_has_failed_and_says_it() -> None:
    class Stopped:
        def fit(self) -> Result:
            return Result(metrics=None, checkpoint=None, error=None, path="", return_value="the loss is nan")

    with pytest.raises(Failed, match="the loss is nan"):
        trainer._finish(cast(TorchTrainer, Stopped()))


def test_what_only_hands_a_run_on_loads_no_model_library() -> None:
    """The decoding tasks, and Ray Train's controller (where Ray itself then loads torch)."""
    handing_on = "ray_jobs.training.job, ray_jobs.training.ingest, ray_jobs.training.data_config"
    code = f"import sys, {handing_on}; print({{'torch', 'timm'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_where_the_first_weights_lay_is_no_part_of_a_run() -> None:
    smoke = recipe("smoke")
    moved = override(smoke, ["model.photo.weights=elsewhere/w.pt", "model.text.weights=there.pt"])
    assert _identity(moved) == _identity(smoke)
    assert _identity(override(smoke, ["chunk_size=4"])) == _identity(smoke)
    assert _identity(override(smoke, ["batch_size=4"])) != _identity(smoke)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--recipe", "best"], "--recipe: no 'best'"),
        (["--set", "batch_size=0"], "batch: Input should be greater than or equal to 1"),
        (["--workers", "3"], "--workers: batch 16 does not divide by 3"),
        (["--workers", "0"], "does not divide by 0"),
        (["--workers", "1:3"], "batch 16 does not divide by 3"),
        (["--workers", "2:1"], "2:1: the most is less than the least"),
        (["--workers", "some"], "'some' is neither a number nor MIN:MAX"),
        (
            ["--workers", "16"],
            "--workers: 16 and the decoding need 18 CPUs, the cluster has 6; start more nodes",
        ),
        (["--gpu", "yes"], "--gpu: 1 workers need 1 GPUs, the cluster has 0; start"),
        (["--split", "dev"], "split 'dev' is empty; there is test, train, val"),
        (["--validate", "dev"], "split 'dev' is empty"),
        (["--shards", "nowhere"], "nowhere: no shards here"),
        (["--extra-shards", "nowhere"], "nowhere: no shards here"),
        (["--set", "model.photo.weights=none/w.pt"], "no file none/w.pt"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    ray_cluster: str, shards: str, tmp_path: Path, change: list[str], says: str
) -> None:
    with pytest.raises(InputError) as refusal:
        run("--recipe", "smoke", "--shards", shards, "--out", tmp_path / "out", *change)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_a_profiler_that_is_not_installed_is_missed_before_the_run(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_jobs.training.profiling._program", lambda: None)
    with pytest.raises(InputError, match="--profile: there is no py-spy here; pip install py-spy"):
        run("--recipe", "smoke", "--shards", shards, "--out", tmp_path / "out", "--profile", "py-spy")
    assert not (tmp_path / "out").exists()


def test_classes_are_asked_for_where_they_are_needed(ray_cluster: str, tmp_path: Path) -> None:
    from ray_jobs.jobs.prepare_shards import prepare_shards
    from ray_jobs.prepare_shards import parser
    from tests.data.pictures import png, tree

    line = {
        "id": "a",
        "split": "train",
        "category": "cup",
        "photo": "a.png",
        "sketches": ["s.png"],
        "text": "red",
    }
    tree(tmp_path / "in", {"manifest.jsonl": json.dumps(line), "a.png": png(), "s.png": png()})
    shards = str(tmp_path / "shards")
    prepare_shards(parser().parse_args(["--source", f"manifest:{tmp_path / 'in'}", "--out", shards]))
    with pytest.raises(InputError, match="class: photo a has none, and the recipe needs classes"):
        run("--recipe", "smoke", "--shards", shards, "--out", tmp_path / "out")
