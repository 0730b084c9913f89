"""Stages train only their parts, resume exactly, and stop on a NaN or infinite loss or gradient."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ray_jobs.recipes import recipe
from ray_jobs.recipes.stages import fusion, joint, with_frozen_backbone, with_shared_encoder, with_terms
from stbir.config import MODALITIES, Objective, OptimizerConfig, Recipe, Trainable
from stbir.data.batch import Batch
from stbir.data.photo_index import PhotoIndex
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.builder import build_retriever
from stbir.training.loop import DivergedError, Metrics, step_seed, train
from stbir.training.stages import StageRun, TrainableModel, start_stage

CPU = torch.device("cpu")
N = 8


@pytest.fixture(scope="module")
def photos() -> PhotoIndex:
    numbers = np.arange(N)
    return PhotoIndex(
        row_groups=[("memory://none", "0.parquet", 0)],
        row_group=np.zeros(N, np.int64),
        row=numbers,
        sketch_count=np.ones(N, np.int64),
        label=numbers % 2,
        text_key=numbers,
        aux=np.zeros(N, bool),
        texts=[f"colour {i} vase" for i in numbers],
        ids=[f"vase:{i}" for i in numbers],
    )


def batches(stage_name: str, steps: int, start: int = 0) -> Iterator[Batch]:
    for step in range(start, steps):
        rng = np.random.default_rng(step)
        photos = rng.integers(0, 256, (N, 3, 32, 32), np.uint8)
        sketches = None if stage_name == "pretrain" else photos[:, :1].copy()
        photo = rng.permutation(N)
        texts = [f"colour {i} vase" for i in photo]
        yield Batch(0, step, 1, photo, np.zeros_like(photo), sketches, photos, texts)


def with_more_stages(r: Recipe) -> Recipe:
    images = replace(joint(1), name="images", trainable=Trainable(("sketch", "photo")))
    pairs = with_terms(joint(1).objective.pairs, learn_temperature=True, temperature=0.011, symmetric=True)
    learnt = replace(joint(1), name="learnt", objective=Objective(pairs))
    model = replace(r.model, gate=4)
    return replace(
        r, model=model, stages=(with_shared_encoder(joint(1)), images, learnt, *r.stages, fusion(1))
    )


def with_dropout(r: Recipe) -> Recipe:
    options = r.model.photo.options | {"patch_dropout": 0.25}
    return replace(r, model=replace(r.model, photo=replace(r.model.photo, options=options)))


def new_run(name: str) -> tuple[Recipe, StageRun]:
    r = with_dropout(with_more_stages(recipe("smoke")))
    [stage] = [s for s in r.stages if s.name == name]
    torch.manual_seed(0)
    model = TrainableModel(build_retriever(r.model), num_classes=2)
    return r, start_stage(stage, r, model, num_steps=6)


def reload_model(run: StageRun, r: Recipe, folder: Path) -> TrainableModel:
    """The model of a resumed run. Its encoders are separate, even if the stage shares them."""
    checkpoint.save(str(folder), "step-3", run.model.retriever, r, made_from="", counts={})
    model = TrainableModel(checkpoint.load(str(folder)), num_classes=2)
    assert run.model.class_weight_CD is not None
    assert model.class_weight_CD is not None
    model.class_weight_CD.data.copy_(run.model.class_weight_CD)
    return model


def snapshot(run: StageRun) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.model.state_dict().items()}


@pytest.mark.parametrize("name", ["pretrain", "images", "sketch", "image", "text", "fusion"])
def test_only_trainable_parts_change(name: str, photos: PhotoIndex) -> None:
    r, run = new_run(name)
    before = snapshot(run)
    list(train(run, r, photos, batches(name, 2), CPU))
    changed = {
        key.removeprefix("retriever.").split(".")[0]
        for key, value in snapshot(run).items()
        if not torch.equal(value, before[key])
    }
    gate = {"gate"} if run.stage.trainable.gate else set()
    assert changed - {"class_weight_CD"} == {*run.stage.trainable.encoders} | gate


def test_frozen_backbone_is_trainable_in_the_next_stage(photos: PhotoIndex) -> None:
    r, run = new_run("image")
    frozen = start_stage(with_frozen_backbone(run.stage), r, run.model, num_steps=6)
    before = snapshot(frozen)
    list(train(frozen, r, photos, batches("image", 2), CPU))
    backbone = {name for name in before if name.startswith("retriever.photo.trunk.")}
    changed = {name for name, value in snapshot(frozen).items() if not torch.equal(value, before[name])}
    assert backbone
    assert not backbone & changed
    assert not any("trunk" in name for name in changed)

    unfrozen = start_stage(run.stage, r, run.model, num_steps=6)
    list(train(unfrozen, r, photos, batches("image", 2), CPU))
    assert any(not torch.equal(snapshot(unfrozen)[name], before[name]) for name in backbone)


def test_shared_encoder_trains_and_splits_into_equal_encoders(photos: PhotoIndex) -> None:
    r, run = new_run("joint")
    model = run.model
    before = snapshot(run)
    list(train(run, r, photos, batches("joint", 2), CPU))
    assert model.retriever.sketch.trunk is model.retriever.photo.trunk
    photo_names = [name for name in before if name.startswith("retriever.photo.")]
    assert any(not torch.equal(before[name], snapshot(run)[name]) for name in photo_names)

    [stage] = [s for s in r.stages if s.name == "sketch"]
    assert any(p.grad is not None for p in model.parameters())
    after = start_stage(stage, r, model, num_steps=6)
    assert all(p.grad is None for p in model.parameters())
    assert model.retriever.sketch.trunk is not model.retriever.photo.trunk
    shared_state = {name: value.clone() for name, value in model.retriever.photo.state_dict().items()}
    assert all(torch.equal(shared_state[n], v) for n, v in model.retriever.sketch.state_dict().items())
    list(train(after, r, photos, batches("sketch", 2), CPU))
    assert all(torch.equal(shared_state[n], v) for n, v in model.retriever.photo.state_dict().items())
    assert any(not torch.equal(shared_state[n], v) for n, v in model.retriever.sketch.state_dict().items())


def test_only_trainable_encoders_are_in_training_mode() -> None:
    _, run = new_run("image")
    modes = {modality: run.model.retriever.encoder(modality).training for modality in MODALITIES}
    assert modes == {"sketch": False, "photo": True, "text": False}


def test_loss_falls_on_a_repeated_batch(photos: PhotoIndex) -> None:
    r, run = new_run("image")
    batch = next(batches("image", 1))
    losses = [m.loss for m in train(run, r, photos, [batch] * 25, CPU)]
    assert losses[-1] < 0.5 * losses[0]


def test_metrics_count_steps_and_their_terms_sum_to_the_loss(photos: PhotoIndex) -> None:
    r, run = new_run("sketch")
    metrics = list(train(run, r, photos, batches("sketch", 3), CPU))
    assert [m.step for m in metrics] == [1, 2, 3]
    assert all(m.loss == pytest.approx(sum(m.terms.values()), rel=1e-5) for m in metrics)
    assert all(m.worked_s > 0 and m.waited_s >= 0 for m in metrics)


@pytest.mark.parametrize("name", ["sketch", "joint", "learnt"])
def test_resumed_stage_equals_an_uninterrupted_one(name: str, photos: PhotoIndex, tmp_path: Path) -> None:
    r, uninterrupted = new_run(name)
    losses = [m.loss for m in train(uninterrupted, r, photos, batches(name, 6), CPU)]
    _, interrupted = new_run(name)
    head: list[Metrics] = list(train(interrupted, r, photos, batches(name, 3), CPU))
    state = interrupted.state()
    resumed = start_stage(interrupted.stage, r, reload_model(interrupted, r, tmp_path), 6, state)
    tail = list(train(resumed, r, photos, batches(name, 6, start=3), CPU))
    assert [m.loss for m in head + tail] == losses
    assert [m.step for m in tail] == [4, 5, 6]


def test_seeds_of_stages_steps_and_workers_differ() -> None:
    seeds = {step_seed(*parts) for parts in itertools.product((0, 1), repeat=4)}
    assert len(seeds) == 16


def test_nan_loss_stops_the_run_and_names_the_photos(photos: PhotoIndex) -> None:
    r, run = new_run("image")
    with torch.no_grad():
        next(run.model.retriever.photo.project.parameters(), run.model.class_weight_CD).fill_(torch.nan)  # type: ignore[union-attr]
    with pytest.raises(DivergedError, match="stage image, step 1: the loss is nan") as raised:
        list(train(run, r, photos, batches("image", 1), CPU))
    assert all(name in str(raised.value) for name in photos.ids)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_infinite_gradient_stops_the_run_and_leaves_the_weights(value: float, photos: PhotoIndex) -> None:
    r, run = new_run("image")
    weight = next(each for each in run.model.retriever.photo.parameters() if each.requires_grad)
    weight.register_hook(lambda gradient: torch.full_like(gradient, value))
    before = [parameter.detach().clone() for parameter in run.model.parameters()]
    with pytest.raises(DivergedError, match=r"stage image, step 1: the gradient norm is .*vase:"):
        list(train(run, r, photos, batches("image", 1), CPU))
    for now, then in zip(run.model.parameters(), before, strict=True):
        assert torch.equal(now, then)


def degenerate(kind: str, photos: PhotoIndex) -> tuple[PhotoIndex, Batch]:
    """A batch in which all photos, captions or classes are equal, or no class is known."""
    batch = next(batches("image", 1))
    same = np.zeros(N, np.int64)
    if kind == "one photo":
        return photos, replace(batch, photo=same)
    if kind == "one caption":
        return replace(photos, text_key=same, texts=["red vase"] * N), replace(batch, texts=["red vase"] * N)
    return replace(photos, label=same if kind == "one class" else same - 1), batch


@pytest.mark.parametrize("name", ["joint", "sketch", "image", "text", "fusion"])
@pytest.mark.parametrize("kind", ["one photo", "one caption", "one class", "no class"])
def test_equal_samples_give_finite_losses_and_weights(kind: str, name: str, photos: PhotoIndex) -> None:
    r, run = new_run(name)
    others, batch = degenerate(kind, photos)
    [metrics] = train(run, r, others, [batch], CPU)
    assert math.isfinite(metrics.loss)
    assert all(value.isfinite().all() for value in snapshot(run).values())
    if kind in ("one photo", "one caption"):
        assert {metrics.terms[term] for term in metrics.terms.keys() - {"category"}} == {0}


def test_frozen_backbone_keeps_its_batch_statistics(photos: PhotoIndex) -> None:
    r = recipe("demo")
    model = TrainableModel(build_retriever(r.model), num_classes=2)
    [stage] = [s for s in r.stages if s.name == "pretrain"]
    run = start_stage(with_frozen_backbone(stage), r, model, num_steps=2)
    before = {name: value.clone() for name, value in model.retriever.photo.trunk.named_buffers()}
    list(train(run, r, photos, batches("pretrain", 2), CPU))
    after = dict(model.retriever.photo.trunk.named_buffers())
    assert before
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_unknown_frozen_prefix_is_rejected(photos: PhotoIndex) -> None:
    r, run = new_run("image")
    with pytest.raises(InputError, match="frozen: no module or parameter 'trnk'"):
        start_stage(replace(run.stage, trainable=Trainable(("photo",), frozen=("trnk",))), r, run.model, 2)


def test_learnt_temperature_is_clamped_as_in_clip(photos: PhotoIndex) -> None:
    """Untrained encoders find nothing, so a temperature near the lower limit grows."""
    r, run = new_run("learnt")
    start = run.model.temperature()
    assert start is not None
    assert start.tolist() == pytest.approx([0.011] * 3)
    list(train(run, r, photos, batches("joint", 4), CPU))
    trained = run.model.temperature()
    assert trained is not None
    assert (trained > start).all()
    assert run.model.logit_scale_P is not None
    run.model.logit_scale_P.data[:] = torch.tensor([7.0, -1.0, 2.0])
    clamped = run.model.temperature()
    assert clamped is not None
    assert clamped.tolist() == pytest.approx([0.01, 1.0, math.exp(-2)])
    fixed = start_stage(next(s for s in r.stages if s.name == "joint"), r, run.model, num_steps=2)
    assert fixed.model.temperature() is None


def test_stage_of_the_shared_encoder_recipes_learns(photos: PhotoIndex) -> None:
    r = replace(recipe("shared_encoder"), model=recipe("smoke").model)
    torch.manual_seed(0)
    model = TrainableModel(build_retriever(r.model), num_classes=0)
    stage = replace(r.stages[0], optimizer=OptimizerConfig(lr=1e-3))
    batch = next(batches("joint", 1))
    losses = [m.loss for m in train(start_stage(stage, r, model, 25), r, photos, [batch] * 25, CPU)]
    assert losses[-1] < 0.5 * losses[0]
    assert model.retriever.sketch.trunk is model.retriever.photo.trunk
