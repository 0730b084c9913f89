"""Ray Data delivers the samples of the plan, for any number of workers and any first step."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import pytest
import ray

from ray_jobs.recipes import recipe
from ray_jobs.recipes.stages import INTRA_MODAL, SKETCH_NOISE, fusion, joint
from ray_jobs.training import decode, ingest
from ray_jobs.training.data_config import PlanDataConfig
from ray_jobs.training.job import STEPS_IN_FLIGHT, Job
from stbir.config import Augmentation, Objective, Recipe, Stage, Trainable
from stbir.data.batch import Batch, EncodedBatch
from stbir.data.photo_index import PhotoIndex, build_photo_index
from stbir.data.sampling import epoch_order, iter_steps
from stbir.data.shards import open_shards


@pytest.fixture(scope="module")
def small() -> Recipe:
    r = recipe("smoke")
    return replace(r, stages=r.stages[:2], batch_size=8, shuffle_window=16)


@pytest.fixture(scope="module")
def photos(ray_cluster: str, local_shards: str) -> PhotoIndex:
    return build_photo_index(open_shards(local_shards), ["train"], [])


def ray_batches(photos: PhotoIndex, r: Recipe, start: int, num_workers: int) -> list[Batch]:
    dataset = ingest.build_dataset(photos, r, start, num_workers, gpu=False)
    return list(ingest.iter_batches(dataset.iterator()))


def test_dataset_contains_the_samples_of_the_plan(photos: PhotoIndex, small: Recipe) -> None:
    batches = ray_batches(photos, small, start=0, num_workers=1)
    expected = [step.order.photo.tolist() for step in iter_steps(photos, small)]
    assert [batch.photo.tolist() for batch in batches] == expected
    assert all(batch.photos is not None and batch.photos.shape == (8, 3, 32, 32) for batch in batches)
    assert [batch.texts for batch in batches] == [[photos.texts[i] for i in batch.photo] for batch in batches]
    is_pretrain = [step.stage == 0 for step in iter_steps(photos, small)]
    assert [batch.sketches is None for batch in batches] == is_pretrain


@pytest.mark.parametrize("gpu", [False, True])
def test_each_range_is_read_and_each_share_decoded_by_a_task(
    photos: PhotoIndex, small: Recipe, gpu: bool
) -> None:
    dataset = ingest.build_dataset(photos, small, start=0, num_workers=2, gpu=gpu)
    steps = list(iter_steps(photos, small))
    assert len(list(ingest.iter_batches(dataset.iterator()))) == 2 * len(steps)
    num_ranges = len(list(decode.step_ranges(photos, small, 0)))
    assert num_ranges > 1
    assert f"(_read): {num_ranges} tasks" in dataset.stats()
    assert f"(_decode): {2 * len(steps)} tasks" in dataset.stats()


def test_a_run_computes_the_order_of_each_epoch_once(photos: PhotoIndex, small: Recipe) -> None:
    with patch("stbir.data.sampling.epoch_order", wraps=epoch_order) as computed:
        ranges = list(decode.step_ranges(photos, small, 0))
    seeds = [call.args[2] for call in computed.call_args_list]
    assert len(seeds) == len(set(seeds)) < len(ranges)


def test_local_batches_equal_those_of_ray_data(photos: PhotoIndex, small: Recipe) -> None:
    small = replace(small, augmentation=Augmentation(word_dropout=0.5))
    remote_batches = ray_batches(photos, small, start=0, num_workers=1)
    for local, remote in zip(decode.iter_local_batches(photos, small), remote_batches, strict=True):
        assert (local.stage, local.number, local.texts) == (remote.stage, remote.number, remote.texts)
        assert local.photo.tolist() == remote.photo.tolist()
        for name in ingest.IMAGE_COLUMNS:
            assert np.array_equal(getattr(local, name), getattr(remote, name))


def test_local_views_equal_those_of_ray_data(photos: PhotoIndex, small: Recipe) -> None:
    stage = replace(joint(1), objective=Objective(INTRA_MODAL), trainable=Trainable(("sketch", "photo")))
    small = replace(small, augmentation=Augmentation(), stages=(stage,))
    remote_batches = ray_batches(photos, small, start=0, num_workers=1)
    for local, remote in zip(decode.iter_local_batches(photos, small), remote_batches, strict=True):
        assert local.views.keys() == remote.views.keys() == set(stage.views) != set()
        assert all(np.array_equal(local.views[view], remote.views[view]) for view in local.views)


def test_two_workers_share_the_batches_of_one_from_any_step(photos: PhotoIndex, small: Recipe) -> None:
    small = replace(small, augmentation=Augmentation(word_dropout=0.5))
    batches = ray_batches(photos, small, start=0, num_workers=1)[3:]
    shares = ray_batches(photos, small, start=3, num_workers=2)
    assert len(shares) == 2 * len(batches)
    for step, batch in enumerate(batches):
        pair = shares[2 * step : 2 * step + 2]
        assert np.concatenate([share.photo for share in pair]).tolist() == batch.photo.tolist()
        assert [text for share in pair for text in share.texts or []] == batch.texts
        for name in ingest.IMAGE_COLUMNS:
            images = getattr(batch, name)
            if images is not None:
                assert (np.concatenate([getattr(share, name) for share in pair]) == images).all()


def smoke_stage(name: str) -> Stage:
    return next(stage for stage in recipe("smoke").stages if stage.name == name)


QUERY_NOISE = replace(SKETCH_NOISE, kind="query")
DRAWING_NOISE = replace(SKETCH_NOISE, kind="query", modalities=("sketch",))


@pytest.mark.parametrize(
    ("stage", "modalities", "use_query_corruption"),
    [
        (smoke_stage("sketch"), {"sketch"}, False),
        (smoke_stage("image"), {"photo"}, False),
        (replace(joint(1), noise=QUERY_NOISE), {"sketch", "text"}, True),
        (replace(joint(1), noise=DRAWING_NOISE), {"sketch"}, True),
        (replace(smoke_stage("sketch"), noise=QUERY_NOISE), {"sketch"}, True),
        (fusion(1), {"sketch", "text"}, True),
    ],
)
def test_noise_applies_to_trainable_modalities_or_queries_of_the_gate(
    stage: Stage, modalities: set[str], use_query_corruption: bool
) -> None:
    arguments = decode_arguments(stage)
    assert arguments["noise"].keys() == modalities
    assert arguments["use_query_corruption"] == use_query_corruption


def test_stage_that_has_no_curriculum_has_no_noise() -> None:
    assert decode_arguments(joint(1))["noise"] == {}


def decode_arguments(stage: Stage) -> dict[str, Any]:
    smoke = recipe("smoke")
    r = replace(smoke, model=replace(smoke.model, gate=4), stages=(stage,))
    batch = EncodedBatch(0, 0, 1, np.arange(2), np.zeros(2, np.int64), np.arange(2), [], [], [])
    with patch.object(decode, "decode_batch", wraps=decode.decode_batch) as spy:
        decode.decode_share(batch, r, [10])
    return dict(spy.call_args.kwargs)


def test_object_store_limit_covers_a_fixed_number_of_steps(photos: PhotoIndex, small: Recipe) -> None:
    def limit(gpu: bool, epochs: int = 1) -> float | None:
        r = replace(small, stages=(replace(small.stages[0], epochs=epochs),))
        job = SimpleNamespace(photos=photos, recipe=r, gpu=gpu)
        limits = PlanDataConfig(cast(Job, job))._resolve_execution_options("train").resource_limits
        return cast(float | None, limits.object_store_memory)

    [share] = decode.read_shares(photos, small, 1, [next(iter_steps(photos, small))])
    encoded_bytes, decoded_bytes = sum(len(photo) for photo in share.photos), 8 * (3 + 1) * 32 * 32
    assert not share.sketches  # stage `pretrain` has none
    expected = STEPS_IN_FLIGHT * max(encoded_bytes, decoded_bytes)
    assert limit(gpu=False) == limit(gpu=False, epochs=1000) == expected
    assert limit(gpu=True) == float("inf")


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux only")
def test_tasks_run_on_idle_cores_when_training_on_cpus(photos: PhotoIndex, small: Recipe) -> None:
    index = ray.put(photos)
    plan = next(ingest._plan({"start": np.array([0])}, index, small))
    [share, *_] = ingest._read(plan, index, small, 1, low_priority=False)

    def policy(task: Callable[..., Any], *arguments: Any) -> int:
        """The scheduling policy after the task, in a new thread."""
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: next(iter(task(*arguments)))).result()
            return pool.submit(os.sched_getscheduler, 0).result()

    assert policy(ingest._read, plan, index, small, 1, True) == os.SCHED_IDLE
    assert policy(ingest._decode, share, small, [8, 8], True) == os.SCHED_IDLE
    assert policy(ingest._decode, share, small, [8, 8], False) == os.SCHED_OTHER


def test_decoding_works_if_the_scheduling_policy_cannot_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_error(*arguments: object) -> None:
        raise PermissionError("not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", raise_error)
    ingest._lower_priority()
