"""Cached features equal those that each step would compute."""

import itertools
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch

from ray_jobs.recipes import recipe
from ray_jobs.recipes.stages import (
    CORRUPTED_QUERIES,
    TO_FLIPPED_PHOTO,
    TO_OTHER_SKETCH,
    TO_SKETCH,
    fusion,
    joint,
    with_optimizer,
    with_sampling,
    with_terms,
)
from ray_jobs.training.decode import iter_local_batches, read_shares
from stbir.config import (
    MODALITIES,
    Augmentation,
    Modality,
    Objective,
    OptimizerConfig,
    Recipe,
    Stage,
    Trainable,
)
from stbir.data.batch import read_row_groups
from stbir.data.photo_index import PhotoIndex, build_photo_index, class_names
from stbir.data.sampling import iter_steps
from stbir.data.shards import open_shards
from stbir.model.builder import build_retriever
from stbir.model.retriever import Retriever
from stbir.training import feature_cache, gather
from stbir.training.feature_cache import FeatureCache, build_feature_cache
from stbir.training.loop import train
from stbir.training.stages import TrainableModel, start_stage

pytestmark = pytest.mark.slow(reason="trains, in this process")
CPU = torch.device("cpu")
NUM_CLASSES = 8


@pytest.fixture(scope="module")
def photos(local_shards: str) -> PhotoIndex:
    shards = open_shards(local_shards)
    return build_photo_index(shards, ["train"], class_names(shards, ["train"]))


def plain(*names: str, sketches: str = "one") -> Recipe:
    """Stages of `chairs_cpu_reference` with the encoders of `smoke`, not augmented."""
    stages = [stage for stage in recipe("chairs_cpu_reference").stages if stage.name in names]
    changed = tuple(with_sampling(replace(stage, epochs=2), sketches=sketches) for stage in stages)
    # This learning rate changes no weight: AdamW would amplify the different rounding of another batch size.
    changed = with_optimizer(OptimizerConfig(lr=1e-12), changed)
    return replace(recipe("smoke"), augmentation=None, stages=changed)


def cache_constant_features(retriever: Retriever, r: Recipe, photos: PhotoIndex) -> FeatureCache:
    [stage] = r.stages
    return build_feature_cache(r.constant(stage), retriever, r, stage, photos, CPU)


def train_losses(r: Recipe, photos: PhotoIndex) -> list[float]:
    torch.manual_seed(0)
    model, losses = TrainableModel(build_retriever(r.model, 0), NUM_CLASSES), []
    by_stage = itertools.groupby(iter_local_batches(photos, r), key=lambda batch: batch.stage)
    for number, batches in by_stage:
        run = start_stage(r.stages[number], r, model, num_steps=8)
        losses += [metrics.loss for metrics in train(run, r, photos, itertools.islice(batches, 8), CPU)]
    return losses


@pytest.mark.parametrize(("sketches", "chunk_size"), [("one", None), ("all", 9)])
def test_losses_are_equal_with_cached_and_computed_features(
    photos: PhotoIndex, sketches: str, chunk_size: int | None
) -> None:
    r = replace(plain("sketch", "image", "text", sketches=sketches), chunk_size=chunk_size)
    cached = train_losses(r, photos)
    with patch.object(Recipe, "constant", lambda self, stage: ()):
        computed = train_losses(r, photos)
    assert len(cached) > 12
    assert cached == pytest.approx(computed, rel=1e-4)


@pytest.mark.parametrize(("trainable", "chunk_size"), [("photo", None), ("sketch", 9)])
def test_losses_with_views_are_equal_with_cached_and_computed_features(
    photos: PhotoIndex, trainable: Modality, chunk_size: int | None
) -> None:
    """The text encoder is frozen in both; the views of a frozen encoder are not cached."""
    pairs = with_terms((TO_SKETCH, TO_OTHER_SKETCH, TO_FLIPPED_PHOTO), candidates="batch+hard")
    stage = replace(plain("sketch").stages[0], objective=Objective(pairs), trainable=Trainable((trainable,)))
    r = replace(plain("sketch"), stages=(stage,), chunk_size=chunk_size)
    assert r.constant(r.stages[0]) == ("text",)
    cached = train_losses(r, photos)
    with patch.object(Recipe, "constant", lambda self, stage: ()):
        computed = train_losses(r, photos)
    assert len(cached) > 4
    assert cached == pytest.approx(computed, rel=1e-4)


def test_other_sketch_is_another_one_of_the_photo(photos: PhotoIndex) -> None:
    stage = replace(joint(4), objective=Objective((TO_OTHER_SKETCH,)), trainable=Trainable(("sketch",)))
    r = replace(plain("sketch"), stages=(stage,))
    for share in read_shares(photos, r, 1, list(itertools.islice(iter_steps(photos, r), 6))):
        for photo, sketch, image, other in zip(
            share.photo, share.sketch, share.sketches, share.other_sketches, strict=True
        ):
            table = read_row_groups(photos, [int(photos.row_group[photo])], ["sketch"])
            [all_sketches] = [t["sketches"][int(photos.row[photo])].as_py() for t in table.values()]
            assert image == all_sketches[sketch]
            assert other in all_sketches
            assert len(all_sketches) == 1 or other != image


@pytest.mark.parametrize(("trainable", "chunk_size"), [("photo", None), ("photo", 5), ("sketch", 5)])
def test_hard_negatives_are_left_out_where_they_are_no_candidates(
    photos: PhotoIndex, trainable: Modality, chunk_size: int | None
) -> None:
    stage = replace(plain("image").stages[0], trainable=Trainable((trainable,)), noise=None)
    augmentation = Augmentation(word_dropout=0.5)
    r = replace(plain("image"), stages=(stage,), augmentation=augmentation, chunk_size=chunk_size)
    batch, losses = next(iter_local_batches(photos, r)), train_losses(r, photos)
    with patch.object(Stage, "candidate_modalities", set(MODALITIES)):
        complete, expected = next(iter_local_batches(photos, r)), train_losses(r, photos)
    assert losses == pytest.approx(expected, rel=1e-6)
    assert batch.rows_per_sample == 7
    for left_out, full in ((batch.sketches, complete.sketches), (batch.texts, complete.texts)):
        assert left_out is not None
        assert full is not None
        assert np.array_equal(left_out, full[::7])
    assert batch.photos is not None
    assert complete.photos is not None
    assert np.array_equal(batch.photos, complete.photos)


def test_batch_contains_only_inputs_of_trainable_encoders(photos: PhotoIndex) -> None:
    r = plain("sketch")
    [batch, *_] = iter_local_batches(photos, r)
    assert batch.sketches is not None
    assert (batch.photos, batch.texts) == (None, None)


def test_lookup_returns_the_features_of_the_photos_and_sketches_of_a_batch(photos: PhotoIndex) -> None:
    r = plain("text")
    retriever = build_retriever(r.model, 0).eval()
    cache = cache_constant_features(retriever, r, photos)
    complete = patch.object(Stage, "candidate_modalities", set(MODALITIES))
    with complete, patch.object(Recipe, "constant", lambda self, stage: ()):
        [batch, *_] = iter_local_batches(photos, r)
    assert batch.sketches is not None
    assert batch.photos is not None
    cached = cache.lookup(batch)
    with torch.no_grad():
        sketch = retriever.encode_sketch(torch.from_numpy(batch.sketches))
        photo = retriever.encode_photo(torch.from_numpy(batch.photos))
    assert torch.allclose(cached["sketch"], sketch, atol=1e-5)
    assert torch.allclose(cached["photo"], photo, atol=1e-5)
    assert np.unique(batch.sketch).size > 1


def test_workers_encode_parts_that_sum_to_the_complete_cache(photos: PhotoIndex) -> None:
    r = plain("text")
    # The same row group twice, so that each of two workers has one.
    photos = replace(photos, row_groups=photos.row_groups * 2, row_group=np.arange(len(photos)) % 2)
    retriever = build_retriever(r.model, 0).eval()
    complete = cache_constant_features(retriever, r, photos)
    caches = []
    for rank in range(2):
        with (
            patch.object(feature_cache, "is_distributed", lambda: True),
            patch.multiple(gather, is_distributed=lambda: True, rank=lambda rank=rank: rank),
            patch.multiple("torch.distributed", get_world_size=lambda: 2, all_reduce=lambda features: None),
        ):
            caches.append(cache_constant_features(retriever, r, photos))
    for modality, rows in complete.features.items():
        parts = [cache.features[modality] for cache in caches]
        assert torch.equal(parts[0] + parts[1], rows)
        assert all((part == 0).all(1).any() for part in parts)


@pytest.mark.parametrize(
    ("stage", "augment", "constant"),
    [
        (plain("sketch").stages[0], None, ("photo", "text")),
        (plain("sketch").stages[0], Augmentation(), ()),
        (plain("image").stages[0], None, ("sketch", "text")),
        (joint(1), None, ()),
        (fusion(1), None, ("photo",)),
        (replace(fusion(1), noise=None), None, ("sketch", "photo", "text")),
        (replace(plain("text").stages[0], noise=CORRUPTED_QUERIES), None, ("sketch", "photo")),
    ],
)
def test_constant_modalities_have_a_frozen_encoder_and_constant_inputs(
    stage: Stage, augment: Augmentation | None, constant: tuple[str, ...]
) -> None:
    smoke = recipe("smoke")
    r = replace(smoke, model=replace(smoke.model, gate=4), augmentation=augment, stages=(stage,))
    assert r.constant(stage) == constant
    assert set(r.streamed(stage)) == set(stage.modalities) - set(constant)
