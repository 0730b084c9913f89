"""Ablation with tiny encoders: stored results are reused, missing ones computed, other settings refused."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ray_jobs import ablate, prepare_shards
from ray_jobs.jobs import ablate as job
from stbir.errors import InputError, JobFailedError
from stbir.training.loop import DivergedError

RECIPES = ["smoke", "smoke_without_category"]
TRIALS = sorted(f"{recipe}-fold{n}-seed0.json" for recipe in RECIPES for n in range(2))


@pytest.fixture(scope="module")
def folds(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = str(tmp_path_factory.mktemp("ablate") / "shards")
    arguments = ["--source", "synthetic:30", "--out", out, "--folds", "2"]
    prepare_shards.main(prepare_shards.parser().parse_args(arguments))
    return out


def run(folds: str, out: Path, *more: str, recipes: Sequence[str] = RECIPES) -> dict[str, Any]:
    arguments = ["--recipes", *recipes, "--shards", folds, "--out", str(out), "--cpus", "3", *more]
    return ablate.main(ablate.parser().parse_args(arguments))


@pytest.fixture(scope="module")
def complete(folds: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and the summary of an ablation with all of its trials."""
    out = tmp_path_factory.mktemp("complete") / "out"
    return out, run(folds, out)


@pytest.mark.slow(reason="each trial runs in its own process, which imports torch")
def test_results_are_stored_compared_and_reused(
    folds: str, complete: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    source, summary = complete
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    assert sorted(path.name for path in (tmp_path / "trials").iterdir()) == TRIALS
    assert summary["differences"][RECIPES[1]]["sketch+text"]["acc@1"]["n"] == 2
    assert summary["spreads"][RECIPES[0]]["both distorted"]["area"]["n"] == 2
    content = json.loads((tmp_path / "ablation.json").read_text())
    assert [(trial["recipe"], trial["fold"]) for trial in content["trials"]] == [
        (recipe, f"fold{n}") for n in range(2) for recipe in RECIPES
    ]

    removed = tmp_path / "trials" / TRIALS[0]
    others = {name: (tmp_path / "trials" / name).stat().st_mtime_ns for name in TRIALS[1:]}
    before = json.loads(removed.read_text())
    removed.unlink()
    resumed = run(folds, tmp_path)
    assert json.loads(removed.read_text())["results"] == before["results"]
    assert resumed["spreads"] == summary["spreads"]
    assert {name: (tmp_path / "trials" / name).stat().st_mtime_ns for name in TRIALS[1:]} == others

    with pytest.raises(InputError, match="was made with other options"):
        run(folds, tmp_path, "--set", "batch_size=8")


@pytest.mark.slow(reason="each trial runs in its own process, which imports torch")
def test_diverged_trial_is_named_and_the_others_complete(
    folds: str, complete: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JobFailedError, match=r"smoke-fold0-seed0: stage \w+, step \d+: the loss is nan"):
        run(folds, tmp_path / "all", "--set", "stages.*.optimizer.lr=1e30", recipes=["smoke"])
    shutil.copytree(complete[0], tmp_path / "one")
    for name in TRIALS[:2]:
        (tmp_path / "one" / "trials" / name).unlink()
    errors, result = iter([DivergedError("stage pretrain, step 1")]), job._result
    monkeypatch.setattr(job, "_result", lambda task: next(errors, None) or result(task))
    with pytest.raises(
        JobFailedError, match=r"the table lacks these trials: smoke.*: stage pretrain, step 1"
    ) as failure:
        run(folds, tmp_path / "one")
    assert failure.value.summary["trials"] == 3


def test_trial_that_fits_on_no_node_is_refused(folds: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="--cpus: a trial needs 64 CPUs on one node, the largest has 6; request"
    ):
        run(folds, tmp_path, "--cpus", "64")


def test_unusable_weights_are_reported_before_ray_starts(
    folds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "connect", lambda: pytest.fail("Ray was started"))
    (tmp_path / "empty.pt").touch()
    with pytest.raises(InputError, match=r"empty\.pt is not a weights file: it is empty"):
        run(folds, tmp_path / "out", "--set", f"model.photo.weights={tmp_path}/empty.pt")


def test_duplicate_seeds_and_recipes_run_once(folds: str) -> None:
    options = "--out x --recipes smoke smoke --seeds 0 1 --seeds 1"
    trials = job.plan(ablate.parser().parse_args(["--shards", folds, *options.split()]))
    assert [trial.name for trial in trials] == [f"smoke-fold{n}-seed{s}" for s in range(2) for n in range(2)]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--recipes", "best"], "no recipe 'best'"),
        (["--folds", "fold0"], "--folds: fold0; make some"),
        (["--folds", "fold0", "fold9"], "split 'fold9' is empty; available: fold0, fold1, test"),
        (["--set", "batch_size=0"], "batch"),
        (["--cpus", "0"], "--cpus: 0 is less than 1"),
        (["--aux-shards", "nowhere"], "nowhere: no shards here"),
    ],
)
def test_invalid_input_is_refused(folds: str, tmp_path: Path, more: list[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        run(folds, tmp_path / "out", *more)
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()
