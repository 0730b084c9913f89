"""Input errors of the train command. `tests/cluster/test_end_to_end.py` trains with it."""

import re
from pathlib import Path
from typing import Any, cast

import pytest
from ray.train import Result
from ray.train.torch import TorchTrainer

from ray_jobs import train
from ray_jobs.jobs.train import resume_key
from ray_jobs.recipes import recipe
from ray_jobs.recipes.override import override
from ray_jobs.training import trainer
from ray_jobs.training.job import num_completed_steps
from stbir.data.photo_index import build_photo_index, class_names
from stbir.data.shard_writer import publish, write_rows
from stbir.data.shards import open_shards
from stbir.errors import InputError, JobFailedError
from stbir.model import checkpoint
from stbir.model.builder import build_retriever
from stbir.storage.folder import Folder
from tests.ray_jobs.local_run import local_job, run_locally


def run(*arguments: object) -> dict[str, Any]:
    return train.main(train.parser().parse_args([str(a) for a in arguments]))


def test_checkpoint_of_another_run_is_not_resumed(
    ray_cluster: str, local_shards: str, tmp_path: Path
) -> None:
    smoke, out = recipe("smoke"), str(tmp_path)
    shards = open_shards(local_shards)
    digest = build_photo_index(shards, ["train"], class_names(shards, ["train"])).digest
    details = {"photos": digest, "data": [shards.manifest.digest]}
    manifest = {"made_from": "", "counts": {"steps": 0}, "details": details}
    checkpoint.save(out, "step-0", build_retriever(smoke.model), smoke, **manifest)
    with pytest.raises(InputError, match="another recipe; choose another --out"):
        run("--recipe", "smoke", "--shards", local_shards, "--out", out, "--set", "batch_size=4")
    with pytest.raises(InputError, match="of other photos"):
        run("--recipe", "smoke", "--shards", local_shards, "--out", out, "--train-split", "train,val")
    other = {**manifest, "details": {**details, "data": ["sha256:other shards"]}}
    checkpoint.save(out, "step-0", build_retriever(smoke.model), smoke, **other)
    with pytest.raises(InputError, match="of other photos"):
        run("--recipe", "smoke", "--shards", local_shards, "--out", out)


def test_diverged_run_names_step_and_photos_and_keeps_the_checkpoint(
    local_shards: str, tmp_path: Path
) -> None:
    diverging = override(recipe("smoke"), ["stages.*.optimizer.lr=1e38"])
    stopped = run_locally(local_job(diverging, local_shards, str(tmp_path)))
    assert stopped is not None
    assert re.match(r"stage pretrain, step \d: the loss is nan for photos synthetic-0:", stopped)
    assert num_completed_steps(str(tmp_path)) == 0
    weights = checkpoint.load(str(tmp_path)).state_dict().values()
    assert all(bool(weight.isfinite().all()) for weight in weights)


def test_error_returned_by_workers_fails_the_run() -> None:
    class StoppedTrainer:
        def fit(self) -> Result:
            return Result(metrics=None, checkpoint=None, error=None, path="", return_value="the loss is nan")

    with pytest.raises(JobFailedError, match="the loss is nan"):
        trainer.fit_once(cast(TorchTrainer, StoppedTrainer()))


def test_source_of_pretrained_weights_and_chunk_size_do_not_prevent_resuming() -> None:
    smoke = recipe("smoke")
    moved = override(smoke, ["model.photo.weights=elsewhere/w.pt", "model.text.weights=other.pt"])
    assert resume_key(moved) == resume_key(smoke)
    assert resume_key(override(smoke, ["chunk_size=4"])) == resume_key(smoke)
    assert resume_key(override(smoke, ["batch_size=4"])) != resume_key(smoke)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--recipe", "best"], "--recipe: no recipe 'best'"),
        (["--set", "batch_size=0"], "batch_size: Input should be greater than or equal to 1"),
        (["--workers", "3"], "--workers: batch_size 16 is not divisible by 3"),
        (["--workers", "0"], "is not divisible by 0"),
        (["--workers", "1:3"], "batch_size 16 is not divisible by 3"),
        (["--workers", "2:1"], "2:1: MAX is less than MIN"),
        (["--workers", "some"], "'some' is neither a number nor MIN:MAX"),
        (
            ["--workers", "16"],
            "--workers: 16 workers and the decoding need 18 CPUs, the cluster has 6; start more nodes",
        ),
        (["--gpu", "yes"], "--gpu: the workers need 1 GPUs, the cluster has 0; start"),
        (["--train-split", "dev"], "split 'dev' is empty; available: test, train, val"),
        (["--val-split", "dev"], "split 'dev' is empty"),
        (["--shards", "nowhere"], "nowhere: no shards here"),
        (["--aux-shards", "nowhere"], "nowhere: no shards here"),
        (["--set", "model.photo.weights=none/w.pt"], "no file none/w.pt"),
    ],
)
def test_invalid_input_is_rejected_in_one_line(
    ray_cluster: str, local_shards: str, tmp_path: Path, change: list[str], message: str
) -> None:
    with pytest.raises(InputError) as raised:
        run("--recipe", "smoke", "--shards", local_shards, "--out", tmp_path / "out", *change)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_unusable_weights_are_reported_before_ray_starts(
    local_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_jobs.jobs.train.connect", lambda: pytest.fail("Ray was started"))
    (tmp_path / "empty.pt").touch()
    arguments = ("--recipe", "smoke", "--shards", local_shards, "--out", tmp_path / "out")
    with pytest.raises(InputError, match=r"empty\.pt is not a weights file: it is empty"):
        run(*arguments, "--set", f"model.photo.weights={tmp_path}/empty.pt")
    assert not (tmp_path / "out").exists()


def test_missing_profiler_is_reported_before_the_run(
    local_shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_jobs.training.profiling._py_spy_path", lambda: None)
    with pytest.raises(InputError, match="--profile: py-spy is not installed; pip install py-spy"):
        run("--recipe", "smoke", "--shards", local_shards, "--out", tmp_path / "out", "--profile", "py-spy")
    assert not (tmp_path / "out").exists()


def test_missing_class_labels_are_reported(local_shards: str, tmp_path: Path) -> None:
    rows = list(open_shards(local_shards).iter_rows("train"))
    rows[0]["class"] = None
    shards = Folder(str(tmp_path / "shards"))
    publish(shards, [write_rows(shards, 0, rows)], {}, {})
    with pytest.raises(InputError, match=r"class: photo .* has none, and the recipe needs classes"):
        run("--recipe", "smoke", "--shards", shards.uri, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("retired", "option"),
    [
        ("--split", "--train-split"),
        ("--validate", "--val-split"),
        ("--extra-shards", "--aux-shards"),
        ("--save-every", "--checkpoint-every"),
        ("--wait", "--resource-timeout"),
    ],
)
def test_retired_option_is_rejected_with_the_new_name(
    retired: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train.parser().parse_args([retired, "value"])
    assert f"{retired} is now {option}" in capsys.readouterr().err
