"""What Ray Data hands to the workers is the plan, whatever the number of workers and the cursor."""

import os
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import ray

from ray_jobs.recipes import recipe
from ray_jobs.recipes.stages import SKETCH_NOISE, fusion, joint
from ray_jobs.training import decode, ingest
from ray_jobs.training.data_config import Dealt
from ray_jobs.training.job import STEPS_IN_FLIGHT, Job
from stbir.config import Augmentation, Recipe, Stage
from stbir.data.batch import Batch, Encoded
from stbir.data.photo_index import Photos, index_photos
from stbir.data.sampling import steps
from stbir.data.shards import open_shards


@pytest.fixture(scope="module")
def small() -> Recipe:
    r = recipe("smoke")
    return replace(r, stages=r.stages[:2], batch_size=8, shuffle_window=16)


@pytest.fixture(scope="module")
def photos(ray_cluster: str, shards: str) -> Photos:
    return index_photos(open_shards(shards), ["train"], [])


def rows(photos: Photos, r: Recipe, done: int, workers: int) -> list[Batch]:
    return list(ingest.batches(ingest.stream(photos, r, done, workers, gpu=False).iterator()))


def test_the_stream_is_the_plan(photos: Photos, small: Recipe) -> None:
    got = rows(photos, small, done=0, workers=1)
    expected = [step.order.photo.tolist() for step in steps(photos, small)]
    assert [batch.photo.tolist() for batch in got] == expected
    assert all(batch.photos is not None and batch.photos.shape == (8, 3, 32, 32) for batch in got)
    assert [batch.texts for batch in got] == [[photos.texts[i] for i in batch.photo] for batch in got]
    first_stage = [step.stage == 0 for step in steps(photos, small)]
    assert [batch.sketches is None for batch in got] == first_stage


def test_made_in_this_process_it_is_the_same(photos: Photos, small: Recipe) -> None:
    small = replace(small, augmentation=Augmentation(word_dropout=0.5))
    for here, there in zip(decode.local(photos, small), rows(photos, small, done=0, workers=1), strict=True):
        assert (here.stage, here.number, here.texts) == (there.stage, there.number, there.texts)
        assert here.photo.tolist() == there.photo.tolist()
        for name in ingest.PICTURES:
            assert np.array_equal(getattr(here, name), getattr(there, name))


def test_two_workers_and_a_cursor_see_the_same_pictures_in_the_same_order(
    photos: Photos, small: Recipe
) -> None:
    small = replace(small, augmentation=Augmentation(word_dropout=0.5))
    alone = rows(photos, small, done=0, workers=1)[3:]
    shares = rows(photos, small, done=3, workers=2)
    assert len(shares) == 2 * len(alone)
    for step, batch in enumerate(alone):
        pair = shares[2 * step : 2 * step + 2]
        assert np.concatenate([share.photo for share in pair]).tolist() == batch.photo.tolist()
        assert [text for share in pair for text in share.texts or []] == batch.texts
        for name in ingest.PICTURES:
            whole = getattr(batch, name)
            if whole is not None:
                assert (np.concatenate([getattr(share, name) for share in pair]) == whole).all()


def noise_of(stage: Stage) -> dict[str, Any]:
    rows = Encoded(0, 0, 1, np.arange(2), np.zeros(2, np.int64), np.arange(2), [], [], [])
    return decode._noise(
        rows, replace(recipe("smoke"), model=replace(recipe("smoke").model, gate=4), stages=(stage,)), [10]
    )


@pytest.mark.parametrize(
    ("name", "noisy"),
    [("sketch", {"sketch_noise"}), ("image", {"photo_noise"})],
)
def test_only_what_learns_is_corrupted(name: str, noisy: set[str]) -> None:
    [stage] = [stage for stage in recipe("smoke").stages if stage.name == name]
    assert noise_of(stage).keys() == noisy | {"poor"}
    assert not noise_of(stage)["poor"]


def test_poor_queries_are_of_sketches_and_texts_that_learn() -> None:
    poor = replace(SKETCH_NOISE, kind="query")
    assert noise_of(replace(joint(1), noise=poor)).keys() == {"sketch_noise", "text_noise", "poor"}
    drawing = noise_of(replace(joint(1), noise=replace(poor, kind="drawing")))
    assert drawing.keys() == {"sketch_noise", "poor"}
    assert drawing["poor"]
    [sketch] = [stage for stage in recipe("smoke").stages if stage.name == "sketch"]
    found = noise_of(replace(sketch, noise=poor))
    assert found.keys() == {"sketch_noise", "poor"}
    assert found["poor"]


def test_the_gate_learns_from_poor_queries_of_towers_that_stand_still() -> None:
    assert noise_of(fusion(1, 1e-3)).keys() == {"sketch_noise", "text_noise", "poor"}


def test_without_a_curriculum_nothing_is_corrupted() -> None:
    assert noise_of(joint(1)) == {}


def test_ray_train_is_told_how_far_ahead_decoding_may_go(photos: Photos, small: Recipe) -> None:
    def told(gpu: bool, epochs: int = 1) -> float | None:
        r = replace(small, stages=(replace(small.stages[0], epochs=epochs),))
        job = SimpleNamespace(photos=photos, recipe=r, gpu=gpu)
        limits = Dealt(cast(Job, job))._resolve_execution_options("train").resource_limits
        return cast(float | None, limits.object_store_memory)

    [first, *_] = decode.shares(photos, small, workers=1, start=0, count=1)
    stored, decoded = sum(len(photo) for photo in first.photos), 8 * (3 + 1) * 32 * 32
    assert not first.sketches  # not of the stage `pretrain`
    assert told(gpu=False) == told(gpu=False, epochs=1000) == STEPS_IN_FLIGHT * max(stored, decoded)
    assert told(gpu=True) == float("inf")


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="only Linux has it")
def test_decoding_takes_what_training_leaves(photos: Photos, small: Recipe) -> None:
    """Each kind of task in a process of its own; beside GPUs as any other."""
    plan = pa.Table.from_pylist(decode.ranges(photos, small, 0)[:1])
    index = ray.put(photos)
    [step, *_] = ingest._read(plan, index, small, 1, spare=False)

    @ray.remote
    def policy(of: str, spare: bool) -> int:
        if of == "read":
            next(ingest._read(plan, ray.put(photos), small, 1, spare))
        else:
            ingest._decode(step, small, [8, 8], spare)
        return os.sched_getscheduler(0)

    def seen(of: str, spare: bool) -> int:
        alone = {"env_vars": {"OF": f"{of} {spare}"}}
        return int(ray.get(policy.options(runtime_env=alone).remote(of, spare)))

    assert [seen("read", True), seen("decode", True)] == [os.SCHED_IDLE] * 2
    assert seen("decode", False) == os.SCHED_OTHER


def test_a_machine_that_knows_one_class_alone_decodes_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise PermissionError("not here")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    ingest._in_idle_time()
