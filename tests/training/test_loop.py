"""Stages freeze what they must, learn what they should, go on exactly, and stop at nonsense."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ray_jobs.recipes import recipe
from ray_jobs.recipes.stages import fusion, joint, with_frozen_backbone, with_shared_encoder
from stbir.config import Recipe
from stbir.data.batch import Batch
from stbir.data.photo_index import Photos
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.builder import build
from stbir.training.loop import DivergedError, Metrics, step_seed, train
from stbir.training.stages import Learner, StageRun, start_stage

CPU = torch.device("cpu")
N = 8


@pytest.fixture(scope="module")
def photos() -> Photos:
    numbers = np.arange(N)
    return Photos(
        places=[("memory://none", "0.parquet", 0)],
        place=np.zeros(N, np.int64),
        row=numbers,
        sketches=np.ones(N, np.int64),
        label=numbers % 2,
        text_key=numbers,
        aux=np.zeros(N, bool),
        texts=[f"colour {i} vase" for i in numbers],
        ids=[f"vase:{i}" for i in numbers],
    )


def batches(stage_name: str, steps: int, start: int = 0) -> Iterator[Batch]:
    for step in range(start, steps):
        rng = np.random.default_rng(step)
        pictures = rng.integers(0, 256, (N, 3, 32, 32), np.uint8)
        sketches = None if stage_name == "pretrain" else pictures[:, :1].copy()
        photo = rng.permutation(N)
        yield Batch(
            0, step, 1, photo, np.zeros_like(photo), sketches, pictures, [f"colour {i} vase" for i in photo]
        )


def with_tied(r: Recipe) -> Recipe:
    steady = replace(joint(1), name="steady", trainable=("sketch", "photo"))
    model = replace(r.model, gate=4)
    return replace(r, model=model, stages=(with_shared_encoder(joint(1)), steady, *r.stages, fusion(1, 1e-2)))


def with_dice(r: Recipe) -> Recipe:
    options = r.model.photo.options | {"patch_dropout": 0.25}
    return replace(r, model=replace(r.model, photo=replace(r.model.photo, options=options)))


def fresh(name: str, state: dict[str, object] | None = None, seed: int = 0) -> tuple[Recipe, StageRun]:
    r = with_dice(with_tied(recipe("smoke")))
    [stage] = [s for s in r.stages if s.name == name]
    torch.manual_seed(seed)
    return r, start_stage(stage, r, Learner(build(r.model, seed), classes=2), steps=6, state=state)


def through_a_checkpoint(run: StageRun, r: Recipe, folder: Path) -> Learner:
    """What a later run starts from: its towers as two, tied or not."""
    checkpoint.save(str(folder), "step-3", run.learner.retriever, r, made_from="", counts={})
    learner = Learner(checkpoint.load(str(folder)), classes=2)
    assert run.learner.classes_CD is not None
    assert learner.classes_CD is not None
    learner.classes_CD.data.copy_(run.learner.classes_CD)
    return learner


def snapshot(run: StageRun) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.learner.state_dict().items()}


@pytest.mark.parametrize("name", ["pretrain", "steady", "sketch", "image", "text", "fusion"])
def test_only_the_learners_change(name: str, photos: Photos) -> None:
    r, run = fresh(name)
    before = snapshot(run)
    list(train(run, r, photos, batches(name, 2), CPU))
    changed = {
        key.removeprefix("retriever.").split(".")[0]
        for key, value in snapshot(run).items()
        if not torch.equal(value, before[key])
    }
    assert changed - {"classes_CD"} == set(run.stage.trainable)


def test_what_stands_still_in_a_stage_learns_again_in_the_next(photos: Photos) -> None:
    r, run = fresh("image")
    steady = start_stage(with_frozen_backbone(run.stage), r, run.learner, steps=6)
    before = snapshot(steady)
    list(train(steady, r, photos, batches("image", 2), CPU))
    trunk = {name for name in before if name.startswith("retriever.photo.trunk.")}
    changed = {name for name, value in snapshot(steady).items() if not torch.equal(value, before[name])}
    assert trunk
    assert not trunk & changed
    assert not any("trunk" in name for name in changed)

    again = start_stage(run.stage, r, run.learner, steps=6)
    list(train(again, r, photos, batches("image", 2), CPU))
    assert any(not torch.equal(snapshot(again)[name], before[name]) for name in trunk)


def test_tied_towers_learn_as_one_and_part_equal(photos: Photos) -> None:
    r, run = fresh("joint")
    learner = run.learner
    before = snapshot(run)
    list(train(run, r, photos, batches("joint", 2), CPU))
    assert learner.retriever.sketch.trunk is learner.retriever.photo.trunk
    photo_names = [name for name in before if name.startswith("retriever.photo.")]
    assert any(not torch.equal(before[name], snapshot(run)[name]) for name in photo_names)

    [stage] = [s for s in r.stages if s.name == "sketch"]
    assert any(p.grad is not None for p in learner.parameters())
    after = start_stage(stage, r, learner, steps=6)
    assert all(p.grad is None for p in learner.parameters())
    assert learner.retriever.sketch.trunk is not learner.retriever.photo.trunk
    tied_state = {name: value.clone() for name, value in learner.retriever.photo.state_dict().items()}
    assert all(torch.equal(tied_state[n], v) for n, v in learner.retriever.sketch.state_dict().items())
    list(train(after, r, photos, batches("sketch", 2), CPU))
    assert all(torch.equal(tied_state[n], v) for n, v in learner.retriever.photo.state_dict().items())
    assert any(not torch.equal(tied_state[n], v) for n, v in learner.retriever.sketch.state_dict().items())


def test_frozen_towers_are_in_eval_mode_and_learners_in_training_mode() -> None:
    _, run = fresh("image")
    modes = {name: run.learner.retriever.tower(name).training for name in ("sketch", "photo", "text")}  # type: ignore[arg-type]
    assert modes == {"sketch": False, "photo": True, "text": False}


def test_the_loss_falls_on_a_batch_seen_again_and_again(photos: Photos) -> None:
    r, run = fresh("image")
    again = next(batches("image", 1))
    losses = [m.loss for m in train(run, r, photos, [again] * 25, CPU)]
    assert losses[-1] < 0.5 * losses[0]


def test_metrics_add_up_and_count(photos: Photos) -> None:
    r, run = fresh("sketch")
    seen = list(train(run, r, photos, batches("sketch", 3), CPU))
    assert [m.step for m in seen] == [1, 2, 3]
    assert all(m.loss == pytest.approx(sum(m.terms.values()), rel=1e-5) for m in seen)
    assert all(m.worked_s > 0 and m.waited_s >= 0 for m in seen)


@pytest.mark.parametrize("name", ["sketch", "joint"])
def test_a_resumed_stage_equals_the_uninterrupted_one(name: str, photos: Photos, tmp_path: Path) -> None:
    r, whole = fresh(name)
    losses = [m.loss for m in train(whole, r, photos, batches(name, 6), CPU)]
    _, first = fresh(name)
    head: list[Metrics] = list(train(first, r, photos, batches(name, 3), CPU))
    second = start_stage(first.stage, r, through_a_checkpoint(first, r, tmp_path), 6, first.state())
    tail = list(train(second, r, photos, batches(name, 6, start=3), CPU))
    assert [m.loss for m in head + tail] == losses
    assert [m.step for m in tail] == [4, 5, 6]


def test_the_dice_of_stages_steps_and_workers_differ() -> None:
    seeds = {step_seed(*parts) for parts in itertools.product((0, 1), repeat=4)}
    assert len(seeds) == 16


def test_a_loss_that_is_not_finite_stops_the_run_and_names_photos(photos: Photos) -> None:
    r, run = fresh("image")
    with torch.no_grad():
        next(run.learner.retriever.photo.project.parameters(), run.learner.classes_CD).fill_(torch.nan)  # type: ignore[union-attr]
    with pytest.raises(DivergedError, match="stage image, step 1: the loss is nan") as told:
        list(train(run, r, photos, batches("image", 1), CPU))
    assert all(name in str(told.value) for name in photos.ids)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_stops_the_run_before_it_is_learnt(
    value: float, photos: Photos
) -> None:
    r, run = fresh("image")
    weight = next(each for each in run.learner.retriever.photo.parameters() if each.requires_grad)
    weight.register_hook(lambda gradient: torch.full_like(gradient, value))
    before = [parameter.detach().clone() for parameter in run.learner.parameters()]
    with pytest.raises(DivergedError, match=r"stage image, step 1: the norm of its gradient is .*vase:"):
        list(train(run, r, photos, batches("image", 1), CPU))
    for now, then in zip(run.learner.parameters(), before, strict=True):
        assert torch.equal(now, then)


def degenerate(kind: str, photos: Photos) -> tuple[Photos, Batch]:
    """A batch in which something is everywhere the same, or nowhere known."""
    batch = next(batches("image", 1))
    same = np.zeros(N, np.int64)
    if kind == "one photo":
        return photos, replace(batch, photo=same)
    if kind == "one caption":
        return replace(photos, text_key=same, texts=["red vase"] * N), replace(batch, texts=["red vase"] * N)
    return replace(photos, label=same if kind == "one class" else same - 1), batch


@pytest.mark.parametrize("name", ["joint", "sketch", "image", "text", "fusion"])
@pytest.mark.parametrize("kind", ["one photo", "one caption", "one class", "no class"])
def test_a_batch_without_contrast_teaches_nothing_wrong(kind: str, name: str, photos: Photos) -> None:
    r, run = fresh(name)
    others, batch = degenerate(kind, photos)
    [metrics] = train(run, r, others, [batch], CPU)
    assert math.isfinite(metrics.loss)
    assert all(value.isfinite().all() for value in snapshot(run).values())
    if kind in ("one photo", "one caption"):
        assert {metrics.terms[term] for term in metrics.terms.keys() - {"category"}} == {0}


def test_what_stands_still_keeps_its_statistics_too(photos: Photos) -> None:
    r = recipe("demo")
    learner = Learner(build(r.model), classes=2)
    [stage] = [s for s in r.stages if s.name == "pretrain"]
    run = start_stage(with_frozen_backbone(stage), r, learner, steps=2)
    before = {name: value.clone() for name, value in learner.retriever.photo.trunk.named_buffers()}
    list(train(run, r, photos, batches("pretrain", 2), CPU))
    after = dict(learner.retriever.photo.trunk.named_buffers())
    assert before
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_what_stands_still_must_be_there(photos: Photos) -> None:
    r, run = fresh("image")
    with pytest.raises(InputError, match="frozen: no parameter begins with 'trnk'"):
        start_stage(replace(run.stage, frozen=("trnk",)), r, run.learner, steps=2)
