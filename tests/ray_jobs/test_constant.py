"""Features computed once a stage are those that every step would compute again."""

import itertools
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch

from ray_jobs import feed
from ray_jobs.recipes import recipe
from ray_jobs.recipes.stages import POOR_QUERIES, joint, weigh
from stbir.config import Augment, Optimiser, Recipe, Stage
from stbir.data.photos import Photos, classes_of, index_photos
from stbir.data.shards import open_shards
from stbir.model.builder import build
from stbir.training.constant import constant_features
from stbir.training.loop import train
from stbir.training.stages import Learner, start_stage

CPU = torch.device("cpu")
CLASSES = 8


@pytest.fixture(scope="module")
def photos(shards: str) -> Photos:
    there = open_shards(shards)
    return index_photos(there, ["train"], classes_of(there, ["train"]))


def plain(*names: str, **changes: object) -> Recipe:
    """Stages of `paper_small` with the towers of `smoke`, and no augmentation."""
    stages = [stage for stage in recipe("paper_small").stages if stage.name in names]
    changed = tuple(replace(stage, epochs=2, **changes) for stage in stages)  # type: ignore[arg-type]
    # At a rate that moves nothing: AdamW would blow up what is rounded otherwise in another batch.
    return replace(recipe("smoke"), augment=None, stages=changed, optimiser=Optimiser(lr=1e-12))


def losses(r: Recipe, photos: Photos) -> list[float]:
    torch.manual_seed(0)
    learner, found = Learner(build(r.model, 0), CLASSES), []
    by_stage = itertools.groupby(feed.local(photos, r), key=lambda batch: batch.stage)
    for number, batches in by_stage:
        run = start_stage(r.stages[number], r, learner, steps=8)
        found += [metrics.loss for metrics in train(run, r, photos, itertools.islice(batches, 8), CPU)]
    return found


@pytest.mark.parametrize(("sketches", "chunk"), [("one", None), ("all", 5)])
def test_training_on_them_is_training_on_the_towers(photos: Photos, sketches: str, chunk: int | None) -> None:
    r = replace(plain("sketch", "image", "text", sketches=sketches), chunk=chunk)
    once = losses(r, photos)
    with patch.object(Recipe, "constant", lambda self, stage: ()):
        again = losses(r, photos)
    assert len(once) > 12
    assert once == pytest.approx(again, rel=1e-4)


def test_a_step_streams_only_what_learns(photos: Photos) -> None:
    r = plain("sketch")
    [batch, *_] = feed.local(photos, r)
    assert batch.sketches is not None
    assert (batch.photos, batch.texts) == (None, None)


def test_each_is_the_feature_of_its_own_photo_and_sketch(photos: Photos) -> None:
    r = plain("text")
    retriever = build(r.model, 0).eval()
    found = constant_features(retriever, r, r.stages[0], photos, CPU)
    with patch.object(Recipe, "constant", lambda self, stage: ()):
        [batch, *_] = feed.local(photos, r)
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
            patch.multiple("stbir.training.constant", alone=lambda: False, rank=lambda number=number: number),
            patch.multiple("torch.distributed", get_world_size=lambda: 2, all_reduce=lambda features: None),
        ):
            own.append(constant_features(retriever, r, r.stages[0], photos, CPU))
    for modality, rows in whole.features.items():
        parts = [each.features[modality] for each in own]
        assert torch.equal(parts[0] + parts[1], rows)
        assert all((part == 0).all(1).any() for part in parts)


@pytest.mark.parametrize(
    ("stage", "augment", "constant"),
    [
        (plain("sketch").stages[0], None, ("photo", "text")),
        (plain("sketch").stages[0], Augment(), ()),
        (plain("image").stages[0], None, ("sketch", "text")),
        (joint(1), None, ()),
        (weigh(1, 1e-2), None, ("photo",)),
        (replace(weigh(1, 1e-2), noise=None), None, ("sketch", "photo", "text")),
        (replace(plain("text").stages[0], noise=POOR_QUERIES), None, ("sketch", "photo")),
    ],
)
def test_what_stays_the_same_is_what_neither_learns_nor_moves(
    stage: Stage, augment: Augment | None, constant: tuple[str, ...]
) -> None:
    small = recipe("smoke")
    r = replace(small, model=replace(small.model, gate=4), augment=augment, stages=(stage,))
    assert r.constant(stage) == constant
    assert set(r.streamed(stage)) == set(stage.modalities) - set(constant)
