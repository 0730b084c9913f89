"""Features computed once a stage are those that every step would compute again."""

import itertools
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ray_jobs.recipes import recipe
from ray_jobs.recipes.stages import CORRUPTED_QUERIES, fusion, joint, with_hubness
from ray_jobs.training import decode
from stbir.config import Augmentation, OptimizerConfig, Recipe, Stage
from stbir.data.photo_index import Photos, classes_of, index_photos
from stbir.data.shards import open_shards
from stbir.model.builder import build
from stbir.model.hubness import Hubness
from stbir.training.feature_cache import constant_features, features_of, measure_hubness
from stbir.training.loop import train
from stbir.training.stages import Learner, start_stage

CPU = torch.device("cpu")
CLASSES = 8


@pytest.fixture(scope="module")
def photos(shards: str) -> Photos:
    there = open_shards(shards)
    return index_photos(there, ["train"], classes_of(there, ["train"]))


def plain(*names: str, **changes: object) -> Recipe:
    """Stages of `chairs_cpu_reference` with the towers of `smoke`, and no augmentation."""
    stages = [stage for stage in recipe("chairs_cpu_reference").stages if stage.name in names]
    changed = tuple(replace(stage, epochs=2, **changes) for stage in stages)  # type: ignore[arg-type]
    # At a rate that moves nothing: AdamW would blow up what is rounded otherwise in another batch.
    return replace(recipe("smoke"), augmentation=None, stages=changed, optimizer=OptimizerConfig(lr=1e-12))


def losses(r: Recipe, photos: Photos) -> list[float]:
    torch.manual_seed(0)
    learner, found = Learner(build(r.model, 0), CLASSES), []
    by_stage = itertools.groupby(decode.local(photos, r), key=lambda batch: batch.stage)
    for number, batches in by_stage:
        run = start_stage(r.stages[number], r, learner, steps=8)
        found += [metrics.loss for metrics in train(run, r, photos, itertools.islice(batches, 8), CPU)]
    return found


@pytest.mark.parametrize(("sketches", "chunk"), [("one", None), ("all", 5)])
def test_training_on_them_is_training_on_the_towers(photos: Photos, sketches: str, chunk: int | None) -> None:
    r = replace(plain("sketch", "image", "text", sketches=sketches), chunk_size=chunk)
    once = losses(r, photos)
    with patch.object(Recipe, "constant", lambda self, stage: ()):
        again = losses(r, photos)
    assert len(once) > 12
    assert once == pytest.approx(again, rel=1e-4)


def test_a_step_streams_only_what_learns(photos: Photos) -> None:
    r = plain("sketch")
    [batch, *_] = decode.local(photos, r)
    assert batch.sketches is not None
    assert (batch.photos, batch.texts) == (None, None)


def test_each_is_the_feature_of_its_own_photo_and_sketch(photos: Photos) -> None:
    r = plain("text")
    retriever = build(r.model, 0).eval()
    found = constant_features(retriever, r, r.stages[0], photos, CPU)
    with patch.object(Recipe, "constant", lambda self, stage: ()):
        [batch, *_] = decode.local(photos, r)
    assert batch.sketches is not None
    assert batch.photos is not None
    known = found.of(batch)
    with torch.no_grad():
        assert torch.allclose(
            known["sketch"], retriever.encode_sketch(torch.from_numpy(batch.sketches)), atol=1e-5
        )
        assert torch.allclose(
            known["photo"], retriever.encode_photo(torch.from_numpy(batch.photos)), atol=1e-5
        )
    assert np.unique(batch.sketch).size > 1


def test_workers_share_the_work_and_all_have_the_whole(photos: Photos) -> None:
    r = plain("text")
    photos = replace(photos, places=photos.places * 2, place=np.arange(len(photos)) % 2)  # as if two groups
    retriever = build(r.model, 0).eval()
    whole = constant_features(retriever, r, r.stages[0], photos, CPU)
    own = []
    for number in range(2):
        with (
            patch.multiple(
                "stbir.training.feature_cache", alone=lambda: False, rank=lambda number=number: number
            ),
            patch.multiple("torch.distributed", get_world_size=lambda: 2, all_reduce=lambda features: None),
        ):
            own.append(constant_features(retriever, r, r.stages[0], photos, CPU))
    for modality, rows in whole.features.items():
        parts = [each.features[modality] for each in own]
        assert torch.equal(parts[0] + parts[1], rows)
        assert all((part == 0).all(1).any() for part in parts)


def knowing(lr: float = 1e-3) -> Recipe:
    smoke = recipe("smoke")
    return replace(
        smoke, model=replace(smoke.model, gate=4, hubness=64), stages=(with_hubness(fusion(1, lr)),)
    )


def test_hubs_are_measured_against_the_queries_of_training_before_the_first_step(photos: Photos) -> None:
    r = knowing()
    learner = Learner(build(r.model, 0), CLASSES)
    retriever = learner.retriever
    found = features_of(("photo", "sketch"), retriever, r, r.stages[0], photos, CPU)
    photo_PD, sketch_SD = found.features["photo"], found.features["sketch"]
    run = start_stage(r.stages[0], r, learner, steps=8)
    list(train(run, r, photos, itertools.islice(decode.local(photos, r), 2), CPU))
    hubs = retriever.photo.hubness
    assert isinstance(hubs, Hubness)
    width = hubs.queries.shape[2]
    kept = torch.linspace(0, len(sketch_SD) - 1, 64).round().long() if len(sketch_SD) > 64 else slice(None)
    assert torch.equal(hubs.queries[0, : min(64, len(sketch_SD))], sketch_SD[kept][:, :width])
    assert torch.allclose(hubs.mean_similarity, hubs.nearness(photo_PD[:, :width]).mean(0))


def test_a_run_that_goes_on_within_the_stage_does_not_measure_again(photos: Photos) -> None:
    r = knowing()
    run = start_stage(r.stages[0], r, Learner(build(r.model, 0), CLASSES), steps=8)
    run.step = 3
    measure_hubness(run, r, photos, CPU)
    hubs = run.learner.retriever.photo.hubness
    assert isinstance(hubs, Hubness)
    assert not hubs.measured


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": recipe("smoke").model}, "set model.hubness"),
        ({"stages": (with_hubness(fusion(1, 1e-3)), joint(1))}, "a tower learns in it or after it"),
        ({"stages": (with_hubness(joint(1)),)}, "a tower learns in it or after it"),
        ({"stages": tuple(with_hubness(replace(fusion(1, 1e-3), name=n)) for n in "ab")}, "once is enough"),
    ],
)
def test_a_recipe_that_would_measure_in_vain_is_refused(changes: dict[str, Any], says: str) -> None:
    if "model" in changes:
        changes = {"model": replace(changes["model"], gate=4)}
    with pytest.raises(ValidationError, match=says):
        replace(knowing(), **changes)


@pytest.mark.parametrize(
    ("stage", "augment", "constant"),
    [
        (plain("sketch").stages[0], None, ("photo", "text")),
        (plain("sketch").stages[0], Augmentation(), ()),
        (plain("image").stages[0], None, ("sketch", "text")),
        (joint(1), None, ()),
        (fusion(1, 1e-2), None, ("photo",)),
        (replace(fusion(1, 1e-2), noise=None), None, ("sketch", "photo", "text")),
        (replace(plain("text").stages[0], noise=CORRUPTED_QUERIES), None, ("sketch", "photo")),
    ],
)
def test_what_stays_the_same_is_what_neither_learns_nor_moves(
    stage: Stage, augment: Augmentation | None, constant: tuple[str, ...]
) -> None:
    small = recipe("smoke")
    r = replace(small, model=replace(small.model, gate=4), augmentation=augment, stages=(stage,))
    assert r.constant(stage) == constant
    assert set(r.streamed(stage)) == set(stage.modalities) - set(constant)
