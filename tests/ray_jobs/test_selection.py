"""The published checkpoint is the best on validation; a stage that ends worse is rolled back."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from ray_jobs.jobs.train import _summary
from ray_jobs.training import selection, worker
from ray_jobs.training.job import Job, last_checkpoint, num_completed_steps
from ray_jobs.training.progress import _format
from ray_jobs.training.validation import Validation, choose_validation, mean_mrr
from stbir.data.holdout import is_held_out
from stbir.data.photo_index import build_photo_index
from stbir.data.shard_writer import publish, write_rows
from stbir.data.shards import Shards, open_shards
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest
from tests.ray_jobs.local_run import local_job, resume_recipe, run_locally

BEST_IN_SKETCH: list[float] = [1, 2, 3, 9, 5, 6, 7, 8]
EPOCHS = ["pretrain 1", "sketch 1", "sketch 2", "sketch 3", "sketch 4", "image 1", "text 1"]


def validated_job(shards: str, out: Path, **changes: Any) -> tuple[Job, list[dict[str, Any]]]:
    """A job that validates on `val`, and the lines that it reports."""
    lines: list[dict[str, Any]] = []
    recipe = replace(resume_recipe(), batch_size=20)  # two steps an epoch
    job = replace(local_job(recipe, shards, str(out)), validation=Validation(shards, ("val",)))
    job.progress.put = lines.append  # type: ignore[method-assign,assignment]
    return replace(job, **changes), lines


def run_with_mrr(job: Job, values: list[float]) -> None:
    """Train; validation at the start and after each epoch gives `values` in turn."""
    scores: Iterator[float] = iter(values)

    def scripted(job: Job, model: object, stage: str, epoch: float) -> dict[str, Any]:
        return {"photos": "val", "stage": stage, "epoch": round(epoch), "mrr": next(scores), "acc@1": {}}

    with patch.object(worker, "validate", scripted):
        assert run_locally(job) is None
    assert next(scores, None) is None


def steps_after(job: Job, epoch: str) -> int:
    """Steps of the run up to the end of an epoch `STAGE NUMBER`."""
    name, number = epoch.split()
    index = [stage.name for stage in job.recipe.stages].index(name)
    return sum(job.steps[:index]) + round(job.steps[index] * int(number) / job.recipe.stages[index].epochs)


@pytest.mark.slow(reason="trains, in this process")
@pytest.mark.parametrize(
    ("mrr", "best"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], "text 1"),
        ([1, 2, 3, 9, 5, 6, 9, 8], "image 1"),  # of equal ones the later
    ],
)
def test_best_epoch_is_published_and_the_last_one_stays(
    local_shards: str, tmp_path: Path, mrr: list[float], best: str
) -> None:
    job, lines = validated_job(local_shards, tmp_path)
    run_with_mrr(job, mrr)
    published = read_manifest(Folder(job.out), "checkpoint")
    assert published.counts["steps"] == pytest.approx(steps_after(job, best), abs=1)
    assert num_completed_steps(job.out) == sum(job.steps)
    summary = _summary(job)
    assert summary["steps"] == summary["total"] == sum(job.steps)
    assert (summary["published"]["stage"], summary["published"]["epoch"]) == (best.split()[0], int(best[-1]))
    assert summary["published"]["mrr"] == max(mrr)
    assert summary["digest"] == checkpoint.read_digest(job.out)
    restored = [line for line in lines if "restored for" in line]
    assert {line["mrr"] for line in restored} <= {max(mrr)}
    assert bool(restored) == (mrr.index(max(mrr)) < 5)


@pytest.fixture(scope="module")
def whole(local_shards: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, list[dict[str, Any]]]:
    """A complete run with `BEST_IN_SKETCH`, and its lines."""
    job, lines = validated_job(local_shards, tmp_path_factory.mktemp("whole"))
    run_with_mrr(job, BEST_IN_SKETCH)
    return job, lines


@pytest.mark.slow(reason="trains, in this process")
def test_stage_continues_from_the_best_checkpoint(whole: tuple[Job, list[dict[str, Any]]]) -> None:
    job, lines = whole
    best = checkpoint.load(job.out)
    last = checkpoint.load(last_checkpoint(job.out).uri)
    # Stages `image` and `text` do not train the sketch encoder, which is therefore that of the best epoch.
    expected = best.sketch.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in last.sketch.state_dict().items())
    [image, text] = [line for line in lines if "restored for" in line]
    assert _format(image) == "image: starts from sketch epoch 2, the best so far (mean MRR 9.0)"
    assert text["restored for"] == "text"


@pytest.mark.slow(reason="trains, in this process")
def test_last_is_published_on_request(local_shards: str, tmp_path: Path) -> None:
    job, lines = validated_job(local_shards, tmp_path, select="last")
    run_with_mrr(job, [1, 9, 3, 4, 5, 6, 7, 8])
    assert read_manifest(Folder(job.out), "checkpoint").counts["steps"] == sum(job.steps)
    assert not [line for line in lines if "restored for" in line]
    assert _summary(job)["published"]["select"] == "last"


@pytest.mark.slow(reason="trains, in this process")
def test_run_that_only_gets_worse_publishes_its_start(local_shards: str, tmp_path: Path) -> None:
    job, _ = validated_job(local_shards, tmp_path)
    run_with_mrr(job, [9, 2, 3, 4, 5, 6, 7, 8])
    assert _summary(job)["published"]["stage"] == "start"
    assert read_manifest(Folder(job.out), "checkpoint").counts["steps"] == 0


@pytest.mark.slow(reason="trains, in this process")
def test_interrupted_run_publishes_the_same(
    whole: tuple[Job, list[dict[str, Any]]], local_shards: str, tmp_path: Path
) -> None:
    parts, _ = validated_job(local_shards, tmp_path, checkpoint_interval=3)
    with pytest.raises(StopIteration):
        run_with_mrr(parts, BEST_IN_SKETCH[:6])  # stops in stage `image`, which started from the best epoch
    assert 0 < num_completed_steps(parts.out) < sum(parts.steps)
    run_with_mrr(parts, BEST_IN_SKETCH[6:])
    for uri in (lambda out: out, lambda out: last_checkpoint(out).uri):
        one, other = (checkpoint.load(uri(job.out)).state_dict() for job in (whole[0], parts))
        assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.slow(reason="trains, in this process")
def test_real_validation_scores_the_three_kinds(local_shards: str, tmp_path: Path) -> None:
    job, lines = validated_job(local_shards, tmp_path)
    assert run_locally(job) is None
    epochs = [line["validation"] for line in lines if "validation" in line]
    assert [f"{scores['stage']} {round(scores['epoch'])}" for scores in epochs] == EPOCHS
    published = _summary(job)["published"]
    assert set(published["acc@1"]) == {"sketch", "text", "sketch+text"}
    assert published["mrr"] == max(scores["mrr"] for scores in epochs)
    assert "val acc@1: sketch " in _format(next(line for line in lines if "validation" in line))


def shards_of(folder: Path, splits: dict[str, list[str]], source: str) -> Shards:
    """Shards of photos with the given ids by split."""
    rows = list(open_shards(source).iter_rows("train"))
    named = [
        {**rows[n % len(rows)], "photo_id": photo_id, "split": split}
        for split, ids in splits.items()
        for n, photo_id in enumerate(ids)
    ]
    publish(Folder(str(folder)), [write_rows(Folder(str(folder)), 0, named)], {}, {})
    return open_shards(str(folder))


def test_without_a_validation_split_a_tenth_is_held_out(local_shards: str, tmp_path: Path) -> None:
    ids = [f"vase:{n}" for n in range(200)]
    shards = shards_of(tmp_path, {"train": ids}, local_shards)
    validation = choose_validation(shards, ["train"], None, "best")
    assert validation is not None
    assert validation.name == "10% of train, held out"
    validated = [row["photo_id"] for row in validation.rows()]
    trained = build_photo_index(shards, ["train"], [], held_out=True).ids
    assert sorted(validated + trained) == sorted(ids)
    assert 10 < len(validated) < 35
    assert build_photo_index(shards, ["train"], []).ids == ids


def test_choice_of_validation_photos(local_shards: str, tmp_path: Path) -> None:
    shards = open_shards(local_shards)
    assert choose_validation(shards, ["train"], None, "best") == Validation(local_shards, ("val",))
    assert choose_validation(shards, ["train"], "test", "best") == Validation(local_shards, ("test",))
    assert choose_validation(shards, ["train"], "none", "best") is None
    both = choose_validation(shards, ["train", "val"], None, "best")
    assert both == Validation(local_shards, ("train", "val"), held_out=True)
    assert choose_validation(shards, ["train", "val"], None, "last") is None
    with pytest.raises(InputError, match="split 'dev' is empty"):
        choose_validation(shards, ["train"], "dev", "best")
    trained = next(name for name in map(str, range(100)) if not is_held_out(name))
    single = shards_of(tmp_path, {"train": [trained]}, local_shards)
    assert choose_validation(single, ["train"], None, "best") is None


def test_mean_mrr_leaves_out_kinds_without_queries() -> None:
    assert mean_mrr({"sketch": {"map": 20.0}, "text": {"map": None}, "both": {"map": 40.0}}) == 30
    assert mean_mrr({"sketch": {"map": None}}) is None


@pytest.mark.slow(reason="trains, in this process")
def test_published_scores_of_a_checkpoint_without_validation(local_shards: str, tmp_path: Path) -> None:
    job = local_job(resume_recipe(), local_shards, str(tmp_path))
    assert run_locally(job) is None
    assert selection.published_scores(job) is None
    assert _summary(job)["published"] == {"step": sum(job.steps), "select": "last"}
