"""Trials of tiny towers as Ray tasks: what is done is kept, what is not is run, what differs is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from ray_jobs import ablate, prepare_shards
from ray_jobs.cli import Failed
from stbir.errors import InputError
from stbir.training.loop import DivergedError

RECIPES = ["smoke", "smoke_without_category"]


@pytest.fixture(scope="module")
def folds(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = str(tmp_path_factory.mktemp("ablate") / "shards")
    words = ["--source", "synthetic:30", "--out", out, "--folds", "2"]
    prepare_shards.main(prepare_shards.parser().parse_args(words))
    return out


def run(folds: str, out: Path, *more: str) -> dict[str, Any]:
    words = ["--recipes", *RECIPES, "--shards", folds, "--out", str(out), "--cpus", "1", *more]
    return ablate.main(ablate.parser().parse_args(words))


@pytest.mark.slow(reason="trials run in processes of their own, which import the model libraries")
def test_trials_are_kept_compared_and_gone_on_with(folds: str, tmp_path: Path) -> None:
    first = run(folds, tmp_path)
    kept = sorted(path.name for path in (tmp_path / "trials").iterdir())
    assert kept == sorted(f"{recipe}-fold{n}-seed0.json" for recipe in RECIPES for n in range(2))
    assert first["differences"][RECIPES[1]]["sketch+text"]["acc@1"]["n"] == 2
    assert first["spreads"][RECIPES[0]]["both distorted"]["area"]["n"] == 2
    page = json.loads((tmp_path / "ablation.json").read_text())
    assert [(trial["recipe"], trial["fold"]) for trial in page["trials"]] == [
        (recipe, f"fold{n}") for n in range(2) for recipe in RECIPES
    ]

    lost = tmp_path / "trials" / kept[0]
    others = {name: (tmp_path / "trials" / name).stat().st_mtime_ns for name in kept[1:]}
    before = json.loads(lost.read_text())
    lost.unlink()
    again = run(folds, tmp_path)
    assert json.loads(lost.read_text())["results"] == before["results"]
    assert again["spreads"] == first["spreads"]
    assert {name: (tmp_path / "trials" / name).stat().st_mtime_ns for name in kept[1:]} == others

    with pytest.raises(InputError, match="is of another --set"):
        run(folds, tmp_path, "--set", "batch_size=8")


@pytest.mark.slow(reason="trials run in processes of their own, which import the model libraries")
def test_a_trial_that_diverges_is_named_and_costs_no_other(
    folds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Failed, match=r"smoke-fold0-seed0: stage \w+, step \d+: the loss is nan"):
        run(folds, tmp_path / "all", "--folds", "fold0", "fold1", "--set", "optimizer.lr=1e30")
    first, whole = iter([DivergedError("stage clip, step 1")]), ablate._result
    monkeypatch.setattr(ablate, "_result", lambda done: next(first, None) or whole(done))
    with pytest.raises(Failed, match=r"the table is without these: smoke.*: stage clip, step 1") as told:
        run(folds, tmp_path / "one")
    assert told.value.summary["trials"] == 3


def test_a_trial_that_fits_no_node_is_refused(folds: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="--cpus: a trial needs 64 CPUs of one node, the largest has 6; give"
    ):
        run(folds, tmp_path, "--cpus", "64")


def test_each_seed_named_is_tried_once(folds: str) -> None:
    words = [
        "--shards",
        folds,
        "--out",
        "",
        "--recipes",
        "smoke",
        "smoke",
        "--seeds",
        "0",
        "1",
        "--seeds",
        "1",
    ]
    trials = ablate.main(ablate.parser().parse_args(words))
    assert [trial.name for trial in trials] == [f"smoke-fold{n}-seed{s}" for s in range(2) for n in range(2)]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--recipes", "best"], "no 'best'"),
        (["--folds", "fold0"], "--folds: fold0; make some"),
        (["--folds", "fold0", "fold9"], "split 'fold9' is empty; there is fold0, fold1, test"),
        (["--set", "batch_size=0"], "batch"),
        (["--cpus", "0"], "--cpus: 0 is less than 1"),
        (["--extra-shards", "nowhere"], "nowhere: no shards here"),
    ],
)
def test_bad_input_is_refused(folds: str, tmp_path: Path, more: list[str], says: str) -> None:
    with pytest.raises(InputError) as refusal:
        run(folds, tmp_path / "out", *more)
    assert says in str(refusal.value)
    assert not (tmp_path / "out").exists()
